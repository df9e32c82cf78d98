"""The signature in a bundle: where it stands, what it is of, what README.txt says of it, and what the scripts do."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from mirrors.bundle import BundleError, Composition, Recipe, Signer, with_signature
from mirrors.bundle.compose import SIGNATURE, SUMS
from mirrors.signing import BUNDLE, Key, sign, verify
from tests.bundle import samples
from tests.bundle.test_install import EACH_SHELL, run, tools
from tests.bundle.test_push import push
from tests.signing.conftest import needs_openssh

KEY = Key.generate()
SIGNER = Signer(KEY.fingerprint, lambda data: sign(data, KEY))
LATER = Signer(KEY.fingerprint, None)


def names(recipe: Recipe) -> list[str]:
    return [member.name for member in recipe.members]


def data_of(maker, recipe: Recipe, name: str) -> bytes:
    return maker.store.read(next(member.digest for member in recipe.members if member.name == name))


def test_it_stands_right_after_the_sums_and_is_of_them(maker):
    recipe = maker.recipe(signer=SIGNER)
    assert names(recipe)[:4] == ["bundle.json", "SHA256SUMS", "SHA256SUMS.sig", "README.txt"]
    sums, signature = data_of(maker, recipe, SUMS), data_of(maker, recipe, SIGNATURE)
    assert verify(sums, signature, [KEY.public]) == KEY.public
    assert b"SHA256SUMS" not in sums
    assert recipe.members[2].mode == 0o644
    assert recipe.members[2].digest in recipe.rendered


def test_data_only_is_signed_too(maker):
    recipe = maker.recipe(scripts=False, signer=SIGNER)
    assert names(recipe)[:4] == ["bundle.json", "SHA256SUMS", "SHA256SUMS.sig", "README.txt"]


def test_without_a_signer_the_bytes_are_those_of_before(maker):
    recipe = maker.recipe()
    assert SIGNATURE not in names(recipe)
    assert "ssh-keygen" not in data_of(maker, recipe, "README.txt").decode()


def test_a_signature_brought_later_gives_the_same_bytes_as_one_made_at_once(maker):
    waiting = maker.recipe(signer=LATER)
    assert SIGNATURE not in names(waiting)
    signed = with_signature(waiting, sign(data_of(maker, waiting, SUMS), KEY), maker.store)
    at_once = maker.recipe(signer=SIGNER)
    assert signed.members == at_once.members
    assert set(signed.rendered) == set(at_once.rendered)
    before, after = (b"".join(Composition(recipe, maker.store).read()) for recipe in (signed, at_once))
    assert before == after
    with pytest.raises(BundleError, match="signed already"):
        with_signature(signed, b"x", maker.store)


def test_a_stored_recipe_with_a_signature_is_read_again(maker):
    recipe = maker.recipe(signer=SIGNER)
    assert Recipe.from_dict(recipe.as_dict()) == recipe


def test_what_fails_on_signing_leaves_no_bundle(maker):
    def fails(data: bytes) -> bytes:
        raise RuntimeError("the agent is away")

    with pytest.raises(RuntimeError):
        maker.recipe(signer=Signer(KEY.fingerprint, fails))


class TestReadme:
    def test_it_says_how_to_verify_before_anything_is_run(self, maker):
        sheet = data_of(maker, maker.recipe(signer=SIGNER), "README.txt").decode()
        verifying = sheet.index("ssh-keygen -Y verify -f ALLOWED_SIGNERS -I airgap -n airgap-bundle")
        assert verifying < sheet.index("sha256sum -c SHA256SUMS") < sheet.index("sh install.sh CACHE")
        assert verifying < sheet.index("sh push.sh HOST")
        assert "\n  sh " not in sheet[:verifying]
        assert "Never take it from here" in sheet
        assert KEY.fingerprint in sheet
        assert max(len(line) for line in sheet.partition("VERIFY")[2].partition("USE IT BY HAND")[0].splitlines()) <= 80

    def test_the_line_with_the_key_itself_is_not_in_the_bundle(self, maker):
        folder = maker.unpacked(signer=SIGNER)
        for path in folder.rglob("*"):
            if path.is_file() and path.name != "SHA256SUMS.sig":
                assert KEY.public.base.split()[1].encode() not in path.read_bytes()

    @needs_openssh
    def test_its_very_lines_work(self, maker, tmp_path):
        folder = maker.unpacked(signer=SIGNER)
        signers = tmp_path / "allowed"
        signers.write_text(KEY.public.allowed_signers("airgap", BUNDLE) + "\n")
        sheet = (folder / "README.txt").read_text()
        lines = re.search(r"\n  cd \S+\n((?:  .*\n)+)", sheet)[1].replace("ALLOWED_SIGNERS", str(signers))
        assert lines.count("\n") == 3
        done = subprocess.run(["sh", "-ec", lines], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f'Good "{BUNDLE}" signature for airgap' in done.stdout
        assert "README.txt: OK" in done.stdout
        (folder / "SHA256SUMS").write_text("x")
        assert subprocess.run(["sh", "-ec", lines], cwd=folder, capture_output=True).returncode != 0


@pytest.fixture
def signed(copied) -> Path:
    return copied("signed six", lambda maker: maker.unpacked(samples.everything(maker.store)[:6], signer=SIGNER))


@pytest.fixture(params=["public key", "allowed signers"])
def given(request, tmp_path: Path) -> Path:
    path = tmp_path / "a key.pub"
    lines = {"public key": KEY.public_line("x"), "allowed signers": KEY.public.allowed_signers("airgap", BUNDLE)}
    path.write_text(lines[request.param] + "\n")
    return path


@needs_openssh
class TestScripts:
    @EACH_SHELL
    def test_install_takes_what_we_signed(self, signed, given, tmp_path, shell):
        done = run(signed, "--key", given, "--require-signature", tmp_path / "cache", shell=shell)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == "Signature and checksums are right."

    @EACH_SHELL
    def test_push_takes_what_we_signed(self, signed, given, shell):
        done = push(signed, "--key", str(given), "--require-signature", "--dry-run", "r.example", shell=shell)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "Signature and checksums are right.\n"
        assert not list(signed.parent.glob("airgap-push.*"))

    @pytest.mark.parametrize("script", ["install", "push"])
    @pytest.mark.parametrize("fault", ["other key", "a flipped byte", "other sums", "no signature"])
    def test_both_refuse_what_we_did_not_sign(self, signed, tmp_path, script, fault):
        path, signature = tmp_path / "key.pub", signed / SIGNATURE
        path.write_text((Key.generate() if fault == "other key" else KEY).public_line() + "\n")
        if fault == "a flipped byte":
            signature.write_bytes(signature.read_bytes().replace(b"U1NIU0lH", b"U1NIU0lI"))
        elif fault == "other sums":
            with (signed / SUMS).open("a") as file:
                file.write("0" * 64 + "  extra\n")
        elif fault == "no signature":
            signature.unlink()
        if script == "install":
            done = run(signed, "--key", path, "--require-signature", tmp_path / "cache")
        else:
            done = push(signed, "--key", str(path), "--require-signature", "--dry-run", "r.example")
        assert done.returncode == 1
        said = "carries no signature" if fault == "no signature" else "was not made with the key in"
        assert said in done.stderr
        assert done.stdout == ""
        assert not (tmp_path / "cache").exists()
        assert not list(signed.parent.glob("airgap-push.*"))


class TestPushWithoutKey:
    def test_it_says_that_only_checksums_were_checked(self, signed):
        done = push(signed, "--dry-run", "r.example")
        assert done.stderr == "Only checksums were checked, no signature: no --key was given.\n"

    def test_a_required_signature_needs_a_key(self, signed):
        done = push(signed, "--require-signature", "--dry-run", "r.example")
        assert (done.returncode, done.stdout) == (1, "")

    def test_a_key_that_is_not_there_is_wrong_usage(self, signed):
        assert push(signed, "--key", "/nowhere", "--dry-run", "r.example").returncode == 2
        assert push(signed, "--key").returncode == 2

    def test_an_old_ssh_keygen_is_said_to_be_too_old(self, signed, tmp_path):
        (tmp_path / "key.pub").write_text(KEY.public_line() + "\n")
        path = tools(signed, fakes={"ssh-keygen": "echo 'unknown option -- Y' >&2; exit 1"})
        done = push(signed, "--key", str(tmp_path / "key.pub"), "--dry-run", "r.example", path=path)
        assert "ssh-keygen (OpenSSH 8.1 or later) is not here" in done.stderr
        assert os.path.exists(signed / SIGNATURE)
