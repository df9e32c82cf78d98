#!/bin/sh
# install.sh: fill a Trivy cache directory from the Airgap bundle that this script lies in.
#
# Everything is verified first, then prepared beside the cache, then moved in by renaming. If a step fails, the cache
# is as it was. Needs a POSIX shell, tar, gzip, awk, sed, find and one of sha256sum, shasum, openssl.
# This file is the same in every bundle of a version of Airgap; what differs is read from bundle.json.

usage() {
    cat <<'END'
usage: sh install.sh [options] CACHE_DIR

  --checks 2|1          checks bundle to install: 2 for Trivy 0.69 and later, 1 for
                        0.56 to 0.68 (default: by `trivy --version`, else 2)
  --key FILE            verify the bundle's signature with this OpenSSH public key
                        (or allowed-signers file)
  --require-signature   refuse a bundle whose signature cannot be verified
  --vex-url URL         where VEX is served inside: the address of the repository;
                        with several repositories each gets its name appended
  --after-install CMD   run this shell command after a successful installation
  -h, --help            show this text

CACHE_DIR is Trivy's cache directory (often ~/.cache/trivy). It is made if absent.
END
}

LC_ALL=C
export LC_ALL
unset CDPATH
umask 022
set -u

newline='
'
cache='' work='' paths='' state=begin
checks='' key='' vex_url='' after='' require_signature=no

say() { printf '%s\n' "$*"; }
complain() { printf 'install.sh: %s\n' "$*" >&2; }
die() { complain "$*"; exit 1; }
wrong_usage() { complain "$*"; usage >&2; exit 2; }
have() { command -v "$1" >/dev/null 2>&1; }

# --- Verification -----------------------------------------------------------------------------------------------

if have sha256sum; then
    sha256_of() { sha256sum <"$1" | cut -c1-64; }
elif have shasum; then
    sha256_of() { shasum -a 256 <"$1" | cut -c1-64; }
elif have openssl; then
    sha256_of() { openssl dgst -sha256 <"$1" | sed 's/.*[= ]//'; }
else
    sha256_of() { return 1; }
fi

verify_names() {
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
}

verify_sums() {
    while IFS= read -r line; do
        name=${line#*  }
        [ -f "$name" ] || die "$name is missing from the bundle. Unpack the tar again, or fetch the bundle again."
        sum=$(sha256_of "$name") && [ ${#sum} -eq 64 ] ||
            die "The SHA-256 of $name could not be computed: sha256sum, shasum or openssl is needed."
        [ "$sum" = "${line%%  *}" ] || die "$name is damaged: its SHA-256 is not the one in SHA256SUMS. Fetch the bundle again."
        case $name in
            blobs/sha256/*) [ "blobs/sha256/$sum" = "$name" ] || die "$name has another digest than its name says. Do not use this bundle." ;;
        esac
    done <SHA256SUMS
}

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

check_signature() {
    mkdir "$temporary" || die "No temporary folder could be made in ${TMPDIR:-/tmp}."
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

verify() {
    cd "$here" || die "The bundle's folder $here cannot be entered."
    reason=$(unsigned_reason)
    [ -z "$reason" ] || [ $require_signature = no ] || die "The signature could not be verified ($reason), and --require-signature was given."
    [ -n "$reason" ] || check_signature
    verify_names
    verify_sums
    if [ -n "$reason" ]; then
        say "Only checksums were checked, no signature: $reason."
    else
        say "Signature and checksums are right."
    fi
}

# --- What bundle.json says ---------------------------------------------------------------------------------------

# One line a fact: number of the snapshot (0: the bundle), key, value, with tabs between. Lists: key.number.key.
read_facts() {
    facts=$(awk '
        function value(text) {
            sub(/^ *"[a-z_0-9]+": /, "", text)
            sub(/,$/, "", text)
            if (text == "null") return ""
            if (text ~ /^".*"$/) return substr(text, 2, length(text) - 2)
            return text
        }
        function key(text) { sub(/^ *"/, "", text); sub(/": .*/, "", text); return text }
        /^  "[a-z_0-9]+": / { part = key($0); print 0 "\t" part "\t" value($0); next }
        part == "assumed" {
            if ($0 == "    {") left++
            else if ($0 ~ /^      "/) print "left." left "\t" key($0) "\t" value($0)
            next
        }
        $0 == "    {" { snapshot++; next }
        /^      "[a-z_0-9]+": / {
            list = key($0); item = 0
            if (value($0) != "[" && value($0) != "[]") print snapshot "\t" list "\t" value($0)
            next
        }
        $0 == "        {" { item++; next }
        /^          "[a-z_0-9]+": / { print snapshot "\t" list "." item "." key($0) "\t" value($0) }
    ' bundle.json)
    format=$(fact 0 format)
    [ "$format" = 1 ] || die "This bundle has format '$format'; this script reads format 1. Use the install.sh of the bundle itself."
}

fact() { printf '%s\n' "$facts" | awk -F '\t' -v n="$1" -v k="$2" '$1 == n && $2 == k { print $3; exit }'; }

# The numbers of the snapshots that are release files. They stay where they are: which of them is for which machine, and
# where it belongs there, is not this script's to say.
released() { printf '%s\n' "$facts" | awk -F '\t' '$2 == "files_path" && $3 != "" { print $1 }'; }

# The numbers of the snapshots with a place in a cache, which is checked: it becomes a path.
placed() { printf '%s\n' "$facts" | awk -F '\t' '$2 == "cache_path" && $3 != "" { print $1 }'; }

safe_file() {
    case $1 in
        '' | /* | *..* | *[!A-Za-z0-9._/-]*) die "bundle.json names a file in a form this script does not take: '$1'." ;;
    esac
    [ -f "$1" ] || die "bundle.json names $1, which is not in the bundle."
}

# --- Preparing ----------------------------------------------------------------------------------------------------

unpack() { # FILE FOLDER
    safe_file "$1"
    mkdir -p "$2" || die "$2 could not be made."
    gzip -dc <"$1" | (cd "$2" && tar -xof -) || die "$1 could not be unpacked into $work. Is there enough room?"
    # Only plain files and folders have a business in a cache.
    find "$2" ! -type d ! -type f -exec rm -f {} + || die "$2 could not be cleaned."
}

set_modes() {
    find "$1" -type d -exec chmod 755 {} + && find "$1" -type f -exec chmod 644 {} + || die "The permissions below $1 could not be set."
}

write() { # FILE TEXT
    printf '%s\n' "$2" >"$1" || die "$1 could not be written. Is there enough room?"
}

json_text() { # FILE KEY: a string value of a flat JSON object
    tr -d '\n\r' <"$1" | sed -n 's/.*"'"$2"'"[[:space:]]*:[[:space:]]*"\([0-9A-Za-z:.+-]*\)".*/\1/p'
}

prepare_database() { # NUMBER PATH FILE
    target=$work/new/$2
    unpack "$(fact "$1" cache_layer)" "$target"
    [ -f "$target/$3" ] && [ -f "$target/metadata.json" ] || die "The layer for $2 does not hold $3 and metadata.json."
    version=$(tr -d '\n\r' <"$target/metadata.json" | sed -n 's/.*"Version"[[:space:]]*:[[:space:]]*\([0-9][0-9]*\).*/\1/p')
    next=$(json_text "$target/metadata.json" NextUpdate)
    built=$(json_text "$target/metadata.json" UpdatedAt)
    [ -n "$version" ] && [ -n "$built" ] || die "metadata.json in the layer for $2 cannot be read."
    write "$target/metadata.json" "{\"Version\":$version,\"NextUpdate\":\"${next:-0001-01-01T00:00:00Z}\",\"UpdatedAt\":\"$built\",\"DownloadedAt\":\"$now\"}"
    before=''
    [ ! -f "$cache/$2/metadata.json" ] || before=$(json_text "$cache/$2/metadata.json" UpdatedAt)
    told="$told$newline  $2: built $built${before:+ (before: $before)}"
}

prepare_checks() { # NUMBER PATH
    target=$work/new/$2
    unpack "$(fact "$1" cache_layer)" "$target/content"
    [ -d "$target/content/policies" ] || die "The layer for $2 does not hold policies/."
    digest=$(fact "$1" manifest_digest)
    major=$(fact "$1" version_major)
    case $digest$major in *[!a-z0-9:]*) die "bundle.json describes the checks in a form this script does not take." ;; esac
    # Trivy writes the same: without a version the bundle counts as built by hand.
    custom=''
    [ "$major" != 0 ] || custom=',"CustomBuild":true'
    write "$target/metadata.json" "{\"Digest\":\"$digest\",\"DownloadedAt\":\"$now\",\"MajorVersion\":$major$custom}"
    told="$told$newline  $2: checks $slot ($slot_reason)"
}

prepare_vex() { # NUMBER PATH
    item=0
    while :; do
        item=$((item + 1))
        spec=$(fact "$1" "archives.$item.spec_version")
        [ -n "$spec" ] || die "The VEX repository of $(fact "$1" mirror) has no version 0.1, the one Trivy reads."
        [ "$spec" != 0.1 ] || break
    done
    target=$work/new/$2
    unpack "$(fact "$1" "archives.$item.tar_gz")" "$work/unpacked"
    subdir=$(fact "$1" "archives.$item.subdir")
    case "/$subdir/" in
        */../* | *\\*) die "The folder '$subdir' in the VEX archive of $(fact "$1" mirror) cannot be handled here; unpack it by hand (README.txt)." ;;
    esac
    mkdir -p "$target" || die "$target could not be made."
    # The name may be a pattern, which then has to match exactly one folder (go-getter's rule).
    folder=$(
        cd "$work/unpacked" || exit 1
        IFS=''
        [ -z "$subdir" ] && set -- . || set -- ./$subdir
        [ $# -eq 1 ] && [ -f "$1/index.json" ] && printf '%s' "$1"
    ) || die "The VEX archive of $(fact "$1" mirror) has no index.json in '$subdir'."
    case $folder in
        .) mv "$work/unpacked" "$target/0.1" ;;
        *) mv "$work/unpacked/$folder" "$target/0.1" && rm -rf "$work/unpacked" ;;
    esac || die "$target could not be filled."
    base=${vex_url%/}
    [ -z "$base" ] || [ "$vex_count" -eq 1 ] || base=$base/${2##*/}
    location=${base:-https://airgap.invalid/${2##*/}}/$(fact "$1" "archives.$item.served_name")${subdir:+//$subdir}
    # So long an interval, and a cache.json, keep Trivy from ever asking the network for this repository.
    write "$target/vex-repository.json" "{\"name\":\"$(fact "$1" label)\",\"description\":\"From an Airgap bundle\",\"versions\":[{\"spec_version\":\"0.1\",\"locations\":[{\"url\":\"$location\"}],\"update_interval\":\"876000h\"}]}"
    write "$target/cache.json" "{\"UpdatedAt\":\"$now\",\"ETags\":{}}"
    updated=$(fact "$1" updated_at)
    told="$told$newline  $2:${updated:+ updated $updated}"
    { [ "${2##*/}" = default ] && [ -z "$base" ] && default_is_known; } ||
        vex_entries="$vex_entries$newline    - name: ${2##*/}$newline      url: ${base:-https://airgap.invalid/${2##*/}}$newline      enabled: true"
}

# Where there is no repository.yaml, Trivy makes one that names "default"; one that is there may not.
default_is_known() {
    yaml=${XDG_DATA_HOME:-${HOME:-}}/.trivy/vex/repository.yaml
    [ ! -f "$yaml" ] || grep -Eq "^[ -]*name: *[\"']?default[\"']? *\$" "$yaml"
}

# Sets slot and slot_reason.
choose_checks() {
    slot=2 slot_reason='no trivy was found to ask; --checks chooses'
    if [ -n "$checks" ]; then
        slot=$checks slot_reason='as asked with --checks'
        return
    fi
    have trivy || return
    found=$(trivy --version 2>/dev/null </dev/null | sed -n 's/^Version: *v\{0,1\}\([0-9][0-9]*\)\.\([0-9][0-9]*\).*/\1 \2/p' | head -n 1)
    slot_reason='the version of trivy could not be read; --checks chooses'
    [ -n "$found" ] || return
    slot_reason="for trivy ${found% *}.${found#* }, found here"
    if [ "${found% *}" -eq 0 ] && [ "${found#* }" -ge 56 ] && [ "${found#* }" -le 68 ]; then slot=1; fi
}

prepare() {
    now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    told='' vex_entries='' carried='' chosen=no
    vex_count=$(printf '%s\n' "$facts" | awk -F '\t' '$2 == "cache_path" && $3 ~ /^vex\// { n++ } END { print n + 0 }')
    choose_checks
    for number in $(placed); do
        path=$(fact "$number" cache_path)
        case $path in
            db) prepare_database "$number" "$path" trivy.db ;;
            java-db) prepare_database "$number" "$path" trivy-java.db ;;
            policy)
                carried="$carried $(fact "$number" checks_major)"
                [ "$(fact "$number" checks_major)" = "$slot" ] && [ $chosen = no ] || continue
                chosen=yes
                prepare_checks "$number" "$path"
                ;;
            vex/repositories/*/* | vex/repositories/.* | vex/repositories/ | vex/repositories/*[!A-Za-z0-9._-]*)
                die "bundle.json names a folder in a form this script does not take: '$path'." ;;
            vex/repositories/*) prepare_vex "$number" "$path" ;;
            *) die "bundle.json names the cache folder '$path', which this script does not know." ;;
        esac
        paths="$paths $path"
    done
    if [ -n "$carried" ] && [ $chosen = no ]; then
        [ -z "$checks" ] || die "This bundle carries no checks $checks, only:$carried."
        left="left as it is. Checks $slot would be right ($slot_reason), but this bundle carries only:$carried. --checks takes another."
        [ -n "$paths" ] || die "policy is $left"
        told="$told$newline  policy: $left"
    fi
    [ -n "$paths" ] || die "This bundle holds nothing that belongs into a Trivy cache. Use push.sh for its OCI artifacts."
    set_modes "$work/new"
    sync 2>/dev/null || :
}

# --- Switching ------------------------------------------------------------------------------------------------------

# Put back what was moved aside; new/PATH still there means that the new one was not moved in.
put_back() { # PATH
    if [ -e "$work/old/$1" ] || [ -h "$work/old/$1" ]; then
        rm -rf "${cache:?}/$1" && mv "$work/old/$1" "$cache/$1" || complain "$cache/$1 could not be put back; its former content is in $work/old/$1."
    elif [ ! -e "$work/new/$1" ]; then
        rm -rf "${cache:?}/$1"
    fi
}

switch() {
    state=switching
    for path in $paths; do
        case $path in */*) mkdir -p "$cache/${path%/*}" "$work/old/${path%/*}" || fail_switch "$path" ;; esac
        moved="$path $moved"
        if [ -e "$cache/$path" ] || [ -h "$cache/$path" ]; then
            mv "$cache/$path" "$work/old/$path" || fail_switch "$path"
        fi
        mv "$work/new/$path" "$cache/$path" || fail_switch "$path"
    done
    state=done
}

fail_switch() { complain "$cache/$1 could not be replaced (is it a mount point?). The cache is left as it was."; exit 1; }

finish() {
    status=$?
    trap - EXIT
    trap '' HUP INT TERM # an impatient second signal must not interrupt the way back
    [ ! -f "$temporary/signers" ] || rm -rf "$temporary"
    [ -z "$work" ] || [ $state = begin ] || {
        if [ $state = switching ]; then for path in $moved; do put_back "$path"; done; fi
        # Never throw away what could not be put back.
        if [ $state = done ] || [ -z "$(find "$work/old" -type f 2>/dev/null | head -n 1)" ]; then rm -rf "$work"; fi
    }
    exit $status
}

# A run that was killed in the middle leaves its work folder: go back to what was there before it.
recover() {
    old=$(cat "$work/pid" 2>/dev/null)
    case $old in
        '' | *[!0-9]*) ;;
        *) if kill -0 "$old" 2>/dev/null; then die "Another install.sh (process $old) is filling $cache. Wait until it has ended."; fi ;;
    esac
    complain "An earlier run was interrupted; what it had not finished is undone."
    for path in db java-db policy; do
        [ ! -e "$work/old/$path" ] || put_back "$path"
    done
    for path in "$work"/old/vex/repositories/*; do
        [ ! -e "$path" ] || put_back "vex/repositories/${path##*/}"
    done
    [ -z "$(find "$work/old" -type f 2>/dev/null | head -n 1)" ] || die "$work/old holds databases that could not be put back. Move them by hand."
    rm -rf "$work" || die "$work could not be removed."
}

begin() {
    mkdir -p "$cache" 2>/dev/null && [ -d "$cache" ] || die "$cache could not be made. Choose another CACHE_DIR or ask for the right to write there."
    cache=$(cd "$cache" && pwd -P) || die "$cache cannot be entered."
    work=$cache/.airgap-install
    [ ! -d "$work" ] || recover
    mkdir "$work" 2>/dev/null || die "Nothing can be written in $cache. Ask for the right to write there."
    state=preparing moved=''
    write "$work/pid" "$$"
    mkdir "$work/new" "$work/old" || die "Nothing can be written in $cache."
}

# --- Afterwards -------------------------------------------------------------------------------------------------------

advise() {
    say "Installed into $cache:$told"
    flags=''
    [ ! -f "$cache/db/metadata.json" ] || flags="$flags --skip-db-update"
    [ ! -f "$cache/java-db/metadata.json" ] || flags="$flags --skip-java-db-update"
    [ ! -d "$cache/policy/content" ] || flags="$flags --skip-check-update"
    [ "$vex_count" -eq 0 ] || flags="$flags --vex repo"
    if [ -n "$vex_entries" ]; then
        say "For VEX add this to repository.yaml (in \$XDG_DATA_HOME/.trivy/vex, else \$HOME/.trivy/vex; it was not touched):"
        say "  repositories:$vex_entries"
        say "and disable there what this cache does not hold: Trivy would ask the network for it."
    fi
    say "Now:"
    say "  - Restart a running trivy server; it keeps the old database open."
    case " $paths " in *' java-db '*) say "  - Run: trivy clean --scan-cache    (jars seen before keep their old names until then)" ;; esac
    say "  - Scan with: --cache-dir '$cache'$flags --offline-scan"
    say "    and, with Trivy 0.64 and later: --skip-version-check --disable-telemetry"
    say "  - The cache belongs to user $(id -un 2>/dev/null || id -u); give it to the user who scans (chown -R) if that is another."
}

# An incremental bundle names what it left out, because it should be here; a folder that is not is told.
tell_left_out() {
    number=0
    while :; do
        number=$((number + 1))
        mirror=$(fact "left.$number" mirror)
        [ -n "$mirror" ] || return 0
        case $(fact "left.$number" kind) in
            trivy-db) path=db ;;
            trivy-java-db) path=java-db ;;
            trivy-checks) path=policy ;;
            vex)
                path=vex/repositories/$mirror
                [ "$mirror" != vexhub ] || path=vex/repositories/default
                ;;
            *) continue ;;
        esac
        case " $paths " in *" $path "*) continue ;; esac
        if [ -d "$cache/$path" ]; then
            say "$mirror is not in this bundle, because it should be here already; $path was left as it is."
        else
            say "$mirror is not in this bundle, because it should be here already, but $cache has no $path. Ask for the full bundle."
        fi
    done
}

tell_released() {
    for number in $(released); do
        say "Release files ($(fact "$number" mirror) $(fact "$number" version)) lie in $here/$(fact "$number" files_path); nothing of them was installed."
    done
}

while [ $# -gt 0 ]; do
    case $1 in
        --checks | --key | --vex-url | --after-install) [ $# -ge 2 ] || wrong_usage "$1 needs a value." ;;
    esac
    case $1 in
        --checks) checks=$2; shift ;;
        --key) key=$2; shift ;;
        --vex-url) vex_url=$2; shift ;;
        --after-install) after=$2; shift ;;
        --require-signature) require_signature=yes ;;
        -h | --help) usage; exit 0 ;;
        --) shift; break ;;
        -*) wrong_usage "$1 is not an option." ;;
        *) break ;;
    esac
    shift
done
[ $# -eq 1 ] && [ -n "$1" ] || wrong_usage "one CACHE_DIR is needed."
case $checks in '' | 1 | 2) ;; *) wrong_usage "--checks takes 2 or 1." ;; esac
case $vex_url in
    '') ;;
    *[!A-Za-z0-9._~:/%@+,=-]*) wrong_usage "--vex-url holds a character that has no place in such an address." ;;
    http://* | https://*) ;;
    *) wrong_usage "--vex-url needs http:// or https://." ;;
esac
case $1 in /*) cache=$1 ;; *) cache=$PWD/$1 ;; esac
case $key in '' | /*) ;; *) key=$PWD/$key ;; esac
[ -z "$key" ] || [ -r "$key" ] || wrong_usage "the key file $key cannot be read."
case $0 in */*) here=${0%/*} ;; *) here=. ;; esac
here=$(cd "${here:-/}" && pwd -P) || exit 1
temporary=${TMPDIR:-/tmp}/airgap-install.$$

trap finish EXIT
trap 'exit 1' HUP INT TERM
verify
read_facts
if [ -z "$(placed)" ] && [ -n "$(released)" ]; then
    say "Nothing in this bundle belongs into a Trivy cache; $cache was left alone."
    tell_released
    exit 0
fi
begin
prepare
switch
rm -rf "$work"
advise
tell_left_out
tell_released
if [ -n "$after" ]; then
    AIRGAP_CACHE_DIR=$cache
    export AIRGAP_CACHE_DIR
    sh -c "$after" || die "The cache is filled, but the command of --after-install failed (exit status $?)."
fi
