"""What somebody tells the doctor."""

from typing import Any

from django import forms

from mirrors import mirror_rules as rules
from mirrors.checkup import targets_for
from mirrors.doctor import AddressError, Options, Target
from mirrors.mirror_rules import RuleBroken
from mirrors.registry.transport import Connection
from mirrors.snippets import Instance


class DoctorForm(forms.Form):
    """An address, and what a Trivy there would be told. Nothing of it is kept. `targets` and `options` once valid."""

    address = forms.CharField(
        label="Address",
        max_length=600,
        required=False,
        help_text="A registry (registry.example:5000), one repository of it (registry.example/team/trivy-db:2), or the "
        "address of a VEX repository (https://mirror.example/vex/vexhub). Empty: this instance.",
        widget=forms.TextInput(attrs={"spellcheck": "false", "autocapitalize": "none", "inputmode": "url"}),
    )
    ca_pem = forms.CharField(
        label="Certificates that scanners trust beside the system's",
        required=False,
        max_length=rules.LARGEST_CA,
        help_text="PEM text, as Trivy would get it with --cacert or SSL_CERT_FILE.",
        widget=forms.Textarea(
            attrs={"rows": 4, "spellcheck": "false", "class": "mono", "placeholder": "-----BEGIN CERTIFICATE-----"}
        ),
    )
    username = forms.CharField(
        label="User name",
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
    )
    password = forms.CharField(
        label="Password or access token",
        required=False,
        max_length=16_000,
        strip=False,
        help_text="Sent only where the certificate is in order, and not kept. With no user name it is sent as Bearer.",
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
    )

    def __init__(self, data: Any = None, *, here: Instance, initial: dict[str, str] | None = None) -> None:
        super().__init__(data, initial=initial)
        self.here = here
        self.targets: list[Target] = []

    @property
    def advanced_open(self) -> bool:
        return any(self[name].errors or self[name].data for name in ("ca_pem", "username", "password"))

    def clean_address(self) -> str:
        text = str(self.cleaned_data["address"])
        try:
            self.targets = targets_for(text, self.here)
        except AddressError as error:
            raise forms.ValidationError(str(error)) from None
        return text

    def clean_ca_pem(self) -> str:
        try:
            return rules.checked_ca(str(self.cleaned_data["ca_pem"]))
        except RuleBroken as broken:
            raise forms.ValidationError(str(broken)) from None

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        secret = cleaned.get("password", "") + cleaned.get("username", "")
        if any(not 31 < ord(character) != 127 for character in secret):
            self.add_error("password", "Neither can hold control characters. Type it again.")
        if cleaned.get("username") and not cleaned.get("password"):
            self.add_error("password", "A user name needs its password.")
        return cleaned

    def options(self) -> Options:
        user, secret = self.cleaned_data["username"], self.cleaned_data["password"]
        return Options(
            Connection(
                ca_pem=self.cleaned_data["ca_pem"],
                username=user,
                password=secret if user else "",
                token="" if user else secret,
            )
        )
