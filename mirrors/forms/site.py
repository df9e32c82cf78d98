"""What an administrator types into the page of one site."""

from typing import Any

from django import forms

from mirrors import sites
from mirrors.models import Site

_PLAIN = {"autocapitalize": "none", "spellcheck": "false"}


class SiteForm(forms.Form):
    """Settings of one site, new or there already. `wish` gives what the operation takes."""

    name = forms.CharField(
        max_length=80,
        help_text="For commands and addresses: lower-case letters, digits, - and _. It cannot be changed later.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    label = forms.CharField(max_length=80, required=False, help_text="What people read, such as Plant Nord.")
    code = forms.CharField(
        max_length=12,
        required=False,
        help_text="What bundles and receipts call it, in the clear: up to 12 letters and digits. Empty: from the name.",
        widget=forms.TextInput(attrs={"spellcheck": "false", "autocapitalize": "characters"}),
    )
    receipts = forms.ChoiceField(
        label="Receipts",
        choices=[
            (Site.Receipts.EXPECTED, "expected: what arrived is known by a receipt, or marked by hand"),
            (Site.Receipts.NONE, "none: there is no way back; what was last carried is assumed to be there"),
        ],
        widget=forms.RadioSelect,
        initial=Site.Receipts.EXPECTED,
    )
    courier_days = forms.IntegerField(
        label="A courier goes there every so many days",
        required=False,
        min_value=1,
        max_value=sites.MOST_COURIER_DAYS,
        help_text="Data older than that and a day is due there. Empty: as everywhere (AIRGAP_COURIER_DAYS).",
    )
    notes = forms.CharField(
        required=False,
        max_length=sites.LONGEST_NOTES,
        help_text="For people here only: who carries, which media, which form. It is in no bundle.",
        widget=forms.Textarea(attrs={"rows": 3}),
    )
    seen = forms.CharField(required=False, widget=forms.HiddenInput, max_length=40)

    def __init__(self, data: Any = None, *, site: Site | None = None) -> None:
        self.site = site
        super().__init__(data, initial=self._initial())
        if site is not None:
            del self.fields["name"]

    def _initial(self) -> dict[str, Any]:
        there = self.site
        if there is None:
            return {}
        return {
            "label": there.label,
            "code": there.code,
            "receipts": there.receipts,
            "courier_days": there.courier_days,
            "notes": there.notes,
            "seen": sites.fingerprint(there),
        }

    def wish(self) -> sites.Wish:
        given = self.cleaned_data
        code = given["code"] or sites.suggested_code(self.site.name if self.site else given["name"])
        return sites.Wish(
            label=given["label"],
            code=code,
            receipts=given["receipts"],
            courier_days=given["courier_days"],
            notes=given["notes"],
        )
