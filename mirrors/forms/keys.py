"""A key that is trusted, a key to sign with, a signature: pasted or as a file."""

from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile

from mirrors.models import SigningKey
from mirrors.signing import LONGEST
from mirrors.signing.keys import LONGEST_LINE

_PLAIN = {"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


class _Text(forms.CharField):
    """One of two fields that hold the same: neither is called optional."""

    is_one_of = True


class _File(forms.FileField):
    is_one_of = True


class _Pasted(forms.Form):
    """`text` or `file`, one of them; `given` is what it held."""

    longest = 2 * LONGEST_LINE
    wanted = "Paste the key, or choose its file."

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        text, file = str(values.get("text") or ""), values.get("file")
        if isinstance(file, UploadedFile):
            if text.strip():
                raise forms.ValidationError("Either paste it or choose a file, not both.")
            # The operation behind refuses what is longer or no text.
            text = file.read(self.longest + 1).decode("latin-1")
        elif not text.strip() and not self.errors:
            raise forms.ValidationError(self.wanted)
        self.given = text
        return values


class _KeyForm(_Pasted):
    text = _Text(
        label="Public key",
        required=False,
        max_length=2 * LONGEST_LINE,
        widget=forms.Textarea(attrs={**_PLAIN, "rows": 4, "class": "mono", "placeholder": "ssh-ed25519 AAAA… name"}),
        help_text="One line, as in a .pub file, or the allowed-signers line that the other side shows.",
    )
    file = _File(label="Or its file", required=False, widget=forms.FileInput)


class TrustForm(_KeyForm):
    name = forms.CharField(
        max_length=80,
        help_text="Whose it is, such as connected or plant-7: lower-case letters, digits, - and _.",
        widget=forms.TextInput(attrs={**_PLAIN, "autofocus": True}),
    )
    note = forms.CharField(
        max_length=200, required=False, help_text="How you know that it is theirs: by telephone, on paper, from whom."
    )
    again = forms.BooleanField(
        label="It was revoked here, and is to be trusted again", required=False, help_text="Else it is refused."
    )


class ElsewhereForm(_KeyForm):
    kept = forms.ChoiceField(
        label="Its private part is",
        choices=(
            (SigningKey.Kept.OUTSIDE, "outside: every bundle and receipt waits until somebody brings its signature"),
            (SigningKey.Kept.AGENT, "in the ssh-agent of AIRGAP_SSH_AUTH_SOCK, which signs by itself"),
        ),
        initial=SigningKey.Kept.OUTSIDE,
        widget=forms.RadioSelect,
    )


class SignatureForm(_Pasted):
    longest = 2 * LONGEST
    wanted = "Paste the signature, or choose the file SHA256SUMS.sig."
    text = _Text(
        label="Signature",
        required=False,
        max_length=2 * LONGEST,
        widget=forms.Textarea(
            attrs={**_PLAIN, "rows": 7, "class": "mono", "placeholder": "-----BEGIN SSH SIGNATURE-----"}
        ),
    )
    file = _File(label="Or the file SHA256SUMS.sig", required=False, widget=forms.FileInput)


class ReceiptSignatureForm(SignatureForm):
    """The same for a receipt, whose file is `name`."""

    def __init__(self, name: str, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.wanted = f"Paste the signature, or choose the file {name}."
        self.fields["file"].label = f"Or the file {name}"
