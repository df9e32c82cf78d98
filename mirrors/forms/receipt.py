"""A receipt that came back: a typed code, pasted text, or its file."""

from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile

from mirrors.receipts import LONGEST

_PLAIN = {"autocomplete": "off", "autocapitalize": "characters", "spellcheck": "false"}


class _Text(forms.CharField):
    """One of two fields that hold the same: neither is called optional."""

    is_one_of = True


class _File(forms.FileField):
    is_one_of = True


class ReceiptForm(forms.Form):
    """`given` is what was typed, pasted or chosen; `came_by` what the page's script says of how it came."""

    text = _Text(
        label="Code, or the text of the receipt",
        required=False,
        max_length=LONGEST,
        widget=forms.Textarea(
            attrs={**_PLAIN, "rows": 4, "class": "mono", "placeholder": "XXXXX-XXXXX-XXXXX-XXXXX-XXXXX-XXXXX-XXXXX"}
        ),
        help_text="Small letters, O for 0 and I for 1 are fine in a code.",
    )
    file = _File(
        label="Or its file",
        required=False,
        widget=forms.FileInput(attrs={"accept": ".txt,text/plain"}),
        help_text="airgap-receipt-….txt, as it was saved over there.",
    )
    way = forms.CharField(required=False, max_length=8, widget=forms.HiddenInput)

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        text, file = str(values.get("text") or ""), values.get("file")
        self.came_by = str(values.get("way") or "")
        self.given = text.encode()
        if isinstance(file, UploadedFile):
            if text.strip():
                raise forms.ValidationError("Either type it or choose a file, not both.")
            self.given, self.came_by = file.read(LONGEST + 1), "file"
        elif not text.strip() and not self.errors:
            raise forms.ValidationError("Type the code, paste the text, or choose the file of the receipt.")
        return values
