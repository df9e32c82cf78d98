#!/bin/sh
# push.sh: copy the OCI artifacts of the Airgap bundle that this script lies in to a registry.
#
# Uses whichever of oras, skopeo, crane, regctl is there, with the credentials it already has (`oras login`, …).
# Manifests arrive byte for byte, so digests stay what they are. Needs a POSIX shell, awk, sed, find.
# This file is the same in every bundle of a version of Airgap; what differs is read from bundle.json.

usage() {
    cat <<'END'
usage: sh push.sh [options] HOST[/PREFIX]

  --tool NAME     oras, skopeo, crane or regctl (default: the first one found)
  --plain-http    the registry speaks HTTP, not HTTPS (on this machine's own
                  address, 127.0.0.1 or localhost, both are tried)
  --dry-run       say what would be pushed where
  --key FILE      verify the bundle's signature with this OpenSSH public key (or
                  allowed-signers file)
  --require-signature
                  refuse a bundle whose signature cannot be verified
  -h, --help      show this text

Trivy's own artifacts are named as on ghcr.io below HOST/PREFIX:
  aquasecurity/trivy-db:2  aquasecurity/trivy-java-db:1  aquasecurity/trivy-checks:2
Others keep their upstream path without its host.
END
}

LC_ALL=C
export LC_ALL
unset CDPATH
umask 022
set -u

newline='
'
tool='' plain=no dry=no key='' require_signature=no made=no
temporary=${TMPDIR:-/tmp}/airgap-push.$$

say() { printf '%s\n' "$*"; }
complain() { printf 'push.sh: %s\n' "$*" >&2; }
die() { complain "$*"; exit 1; }
wrong_usage() { complain "$*"; usage >&2; exit 2; }
have() { command -v "$1" >/dev/null 2>&1; }

if have sha256sum; then
    sha256_of() { sha256sum <"$1" | cut -c1-64; }
elif have shasum; then
    sha256_of() { shasum -a 256 <"$1" | cut -c1-64; }
elif have openssl; then
    sha256_of() { openssl dgst -sha256 <"$1" | sed 's/.*[= ]//'; }
else
    sha256_of() { return 1; }
fi

# Prints why the signature could not be verified, nothing if it was; dies if it is wrong.
unsigned_reason() {
    if [ -z "$key" ]; then
        say "no --key was given"
    elif [ ! -f SHA256SUMS.sig ]; then
        say "this bundle carries no signature"
    elif ! have ssh-keygen || ! ssh-keygen -Y 2>&1 </dev/null | grep -qi 'argument'; then
        say "ssh-keygen (OpenSSH 8.1 or later) is not here"
    fi
}

make_temporary() {
    [ $made = yes ] || mkdir "$temporary" || die "No temporary folder could be made in ${TMPDIR:-/tmp}."
    made=yes
}

check_signature() {
    make_temporary
    signers=$temporary/signers
    if grep -qE '^(ssh-|ecdsa-|sk-)' "$key"; then
        grep -E '^(ssh-|ecdsa-|sk-)' "$key" | sed 's/^/airgap namespaces="airgap-bundle" /' >"$signers"
        who=airgap
    else
        cat "$key" >"$signers"
        who=$(ssh-keygen -Y find-principals -f "$signers" -s SHA256SUMS.sig 2>/dev/null | head -n 1)
    fi
    ssh-keygen -Y verify -f "$signers" -I "${who%%,*}" -n airgap-bundle -s SHA256SUMS.sig <SHA256SUMS >/dev/null 2>&1 ||
        die "The signature of this bundle was not made with the key in $key. Do not use this bundle."
}

verify_signature() {
    reason=$(unsigned_reason)
    [ -z "$reason" ] || [ $require_signature = no ] || die "The signature could not be verified ($reason), and --require-signature was given."
    [ -n "$reason" ] || check_signature
}

tell_verified() {
    if [ -n "$reason" ]; then
        say "Only checksums were checked, no signature: $reason."
    else
        say "Signature and checksums are right."
    fi >&2
}

verify() {
    [ -f SHA256SUMS ] && [ -s SHA256SUMS ] || die "SHA256SUMS is missing: this is not a complete bundle. Unpack the tar again."
    strange=$(grep -vE '^[0-9a-f]{64}  [A-Za-z0-9_][A-Za-z0-9._/-]*$' SHA256SUMS | head -n 1)
    [ -z "$strange" ] || die "SHA256SUMS holds a line that does not belong there ('$strange'). It was changed on the way; fetch the bundle again."
    listed=$(cut -c67- SHA256SUMS)
    case "/$(printf '%s' "$listed" | tr '\n' /)/" in
        */../* | */./*) die "SHA256SUMS names a file outside the bundle. Do not use this bundle." ;;
    esac
    doubled=$(printf '%s\n' "$listed" | sort | uniq -d | head -n 1)
    [ -z "$doubled" ] || die "$doubled is listed twice in SHA256SUMS. Do not use this bundle; fetch it again."
    odd=$(find . ! -type d ! -type f | head -n 1)
    [ -z "$odd" ] || die "$odd is not a plain file. Do not use this bundle; fetch it again."
    odd=$(find . -name "*$newline*" | head -n 1)
    [ -z "$odd" ] || die "A file with a line break in its name lies in the bundle. Do not use this bundle; fetch it again."
    found=$(find . -type f | sed 's|^\./||' | grep -vxE 'SHA256SUMS(\.sig)?')
    odd=$({ printf '%s\n' "$listed" | sed 's/^/L /'; printf '%s\n' "$found" | sed 's/^/F /'; } |
        awk '{ name = substr($0, 3) } /^L/ { listed[name] = 1; next } !(name in listed) { print name; exit }')
    [ -z "$odd" ] || die "$odd lies in the bundle but is not listed in SHA256SUMS. Remove it, or fetch the bundle again."
    while IFS= read -r line; do
        name=${line#*  }
        [ -f "$name" ] || die "$name is missing from the bundle. Unpack the tar again, or fetch the bundle again."
        sum=$(sha256_of "$name") && [ ${#sum} -eq 64 ] ||
            die "The SHA-256 of $name could not be computed: sha256sum, shasum or openssl is needed."
        [ "$sum" = "${line%%  *}" ] || die "$name is damaged: its SHA-256 is not the one in SHA256SUMS. Fetch the bundle again."
    done <SHA256SUMS
}

# A line for each manifest to push: digest, size, media type, name below HOST/PREFIX, with tabs between.
read_pushes() {
    format=$(sed -n 's/^  "format": \([0-9]*\),$/\1/p' bundle.json)
    [ "$format" = 1 ] || die "This bundle has format '$format'; this script reads format 1. Use the push.sh of the bundle itself."
    pushes=$(awk '
        function value(text) { sub(/^ *"[a-z_0-9]+": "?/, "", text); sub(/"?,?$/, "", text); return text }
        /^      "[a-z_0-9]+": / { list = $0; sub(/^ *"/, "", list); sub(/".*/, "", list); next }
        list != "push" { next }
        /^          "digest": / { digest = value($0) }
        /^          "size": / { size = value($0) }
        /^          "media_type": / { type = value($0) }
        /^          "as": / { print digest "\t" size "\t" type "\t" value($0) }
    ' bundle.json)
    [ -n "$pushes" ] || die "This bundle holds no OCI artifact, and nothing else is pushed. install.sh is for its VEX repositories."
    strange=$(printf '%s\n' "$pushes" | grep -vE '^sha256:[0-9a-f]{64}	[0-9]+	[A-Za-z0-9.+/-]+	[a-z0-9][A-Za-z0-9._/-]*(:|@sha256:)[A-Za-z0-9._-]+$' | head -n 1)
    [ -z "$strange" ] || die "bundle.json describes an artifact in a form this script does not take: $strange"
}

choose_tool() {
    for candidate in ${tool:-oras skopeo crane regctl}; do
        if have "$candidate"; then tool=$candidate; return; fi
    done
    die "None of ${tool:-oras, skopeo, crane, regctl} is here. Install one of them, or copy the image layout in this folder by other means."
}

# A layout of one entry, made of links: crane pushes no other, and it suits the rest as well.
make_layout() { # DIGEST SIZE TYPE
    rm -rf "$temporary/layout"
    mkdir "$temporary/layout" || die "No temporary folder could be made in $temporary."
    ln -s "$here/blobs" "$temporary/layout/blobs" && cat oci-layout >"$temporary/layout/oci-layout" &&
        printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s","digest":"%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"bundle"}}]}\n' \
            "$3" "$1" "$2" >"$temporary/layout/index.json" || die "$temporary could not be written."
}

send() { # TARGET; </dev/null keeps the tools from reading the list that the loop reads
    layout=$temporary/layout
    case $tool in
        oras)
            # By digest means: copied without a tag.
            set -- "${1%@*}"
            if [ $plain = yes ]; then set -- --to-plain-http "$@"; fi
            oras cp --from-oci-layout "$layout:bundle" "$@"
            ;;
        skopeo)
            if [ $plain = yes ]; then set -- --dest-tls-verify=false "docker://$1"; else set -- "docker://$1"; fi
            skopeo copy --all --preserve-digests "oci:$layout:bundle" "$@"
            ;;
        crane)
            if [ $plain = yes ]; then set -- --insecure "$layout" "$1"; else set -- "$layout" "$1"; fi
            crane push "$@"
            ;;
        regctl)
            if [ $plain = yes ]; then
                regctl --host "reg=$host,tls=disabled" image copy "ocidir://$layout:bundle" "$1"
            else
                regctl image copy "ocidir://$layout:bundle" "$1"
            fi
            ;;
    esac </dev/null >"$temporary/log" 2>&1
}

send_either_way() { # TARGET
    send "$1" && return
    case $plain$host in nolocalhost | nolocalhost:* | no127.*) ;; *) return 1 ;; esac
    plain=yes
    send "$1"
}

push_all() {
    make_temporary
    printf '%s\n' "$pushes" >"$temporary/list" || die "$temporary could not be written."
    failed=no
    while IFS='	' read -r digest size type name; do
        make_layout "$digest" "$size" "$type"
        if send_either_way "$host${prefix:+/$prefix}/$name"; then
            say "pushed $host${prefix:+/$prefix}/$name  $digest"
        else
            cat "$temporary/log" >&2
            complain "$name could not be pushed with $tool; its words stand above."
            failed=yes
        fi
    done <"$temporary/list"
    [ $failed = no ] || exit 1
}

advise() {
    base=$host${prefix:+/$prefix}
    say "Scan with what was pushed:"
    for name in $(printf '%s\n' "$pushes" | cut -f4); do
        case $name in
            aquasecurity/trivy-db:*) say "  --db-repository $base/$name" ;;
            aquasecurity/trivy-java-db:*) say "  --java-db-repository $base/$name" ;;
            aquasecurity/trivy-checks:1) say "  --checks-bundle-repository $base/$name    (Trivy 0.56 to 0.68)" ;;
            aquasecurity/trivy-checks:*) say "  --checks-bundle-repository $base/$name    (Trivy 0.69 and later)" ;;
        esac
    done
}

while [ $# -gt 0 ]; do
    case $1 in
        --tool)
            [ $# -ge 2 ] || wrong_usage "$1 needs a value."
            case $2 in oras | skopeo | crane | regctl) tool=$2 ;; *) wrong_usage "--tool takes oras, skopeo, crane or regctl." ;; esac
            shift
            ;;
        --key)
            [ $# -ge 2 ] || wrong_usage "$1 needs a value."
            key=$2
            shift
            ;;
        --require-signature) require_signature=yes ;;
        --plain-http) plain=yes ;;
        --dry-run) dry=yes ;;
        -h | --help) usage; exit 0 ;;
        --) shift; break ;;
        -*) wrong_usage "$1 is not an option." ;;
        *) break ;;
    esac
    shift
done
[ $# -eq 1 ] || wrong_usage "one HOST[/PREFIX] is needed."
case $1 in
    *://*) wrong_usage "HOST is given without http:// or https://." ;;
    '' | /* | *[!A-Za-z0-9._:/-]*) wrong_usage "'$1' is not HOST[/PREFIX]." ;;
esac
target=${1%/}
host=${target%%/*}
prefix=${target#"$host"}
prefix=${prefix#/}
case $key in '' | /*) ;; *) key=$PWD/$key ;; esac
[ -z "$key" ] || [ -r "$key" ] || wrong_usage "the key file $key cannot be read."
case $0 in */*) here=${0%/*} ;; *) here=. ;; esac
here=$(cd "${here:-/}" && pwd -P) && cd "$here" || exit 1

trap 'status=$?; [ $made = no ] || rm -rf "$temporary"; exit $status' EXIT
trap 'exit 1' HUP INT TERM
verify_signature
verify
tell_verified
read_pushes
if [ $dry = yes ]; then
    printf '%s\n' "$pushes" | while IFS='	' read -r digest size type name; do
        say "would push $host${prefix:+/$prefix}/$name  $digest"
    done
    exit 0
fi
choose_tool
push_all
advise
