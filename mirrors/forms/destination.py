"""What an administrator types into the page of one destination, and of a rule that sends a mirror there."""

from typing import Any

from django import forms

from mirrors import destinations, logins, push_rules
from mirrors import mirror_rules as rules
from mirrors.forms.login import LOGIN_FIELDS, LoginPart
from mirrors.logins import NO_LOGIN
from mirrors.models import Destination, Mirror, PushRule
from mirrors.pushing.targets import DEFAULT_TARGET

_PLAIN = {"autocapitalize": "none", "spellcheck": "false"}
FOLDED = frozenset({"proxy", "insecure", "ca_pem"})


class DestinationForm(LoginPart):
    """Settings of one destination, new or there already. `wish` gives what the operation takes."""

    name = forms.CharField(
        max_length=80,
        help_text="For commands and addresses: lower-case letters, digits, - and _. It cannot be changed later.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    label = forms.CharField(max_length=80, required=False, help_text="What people read, such as Harbor of plant 2.")
    address = forms.CharField(
        max_length=500,
        help_text="host[:port], and the path every repository there begins with: harbor.example/security for a Harbor "
        "project, artifactory.example/docker-local, registry.example:5000. Without https://.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    proxy = forms.CharField(
        max_length=300,
        required=False,
        help_text="http://host:port. Empty: HTTPS_PROXY of the environment, if set.",
        widget=forms.TextInput(attrs={"spellcheck": "false"}),
    )
    insecure = forms.BooleanField(
        label="Take plain HTTP or a certificate nobody vouches for",
        required=False,
        help_text="Whoever sits on the way could then read the login, and keep what is pushed for himself.",
    )
    ca_pem = forms.CharField(
        label="Certificates to trust beside the system's",
        required=False,
        max_length=rules.LARGEST_CA,
        help_text="PEM text, as for a company's own authority.",
        widget=forms.Textarea(
            attrs={"rows": 4, "spellcheck": "false", "class": "mono", "placeholder": "-----BEGIN CERTIFICATE-----"}
        ),
    )
    seen = forms.CharField(required=False, widget=forms.HiddenInput, max_length=40)

    def __init__(self, data: Any = None, *, destination: Destination | None = None) -> None:
        self.destination = destination
        self.present = logins.of_row(destination) if destination else NO_LOGIN
        super().__init__(data, initial=self._initial())
        self.offer_logins(self.present)
        if destination is not None:
            del self.fields["name"]
        self.order_fields(["name", "label", "address"])

    def _initial(self) -> dict[str, Any]:
        there = self.destination
        if there is None:
            return {}
        return {
            "label": there.label,
            "address": there.address,
            "proxy": there.proxy,
            "insecure": there.insecure,
            "ca_pem": there.ca_pem,
            "username": there.username,
            "seen": destinations.fingerprint(there),
        }

    @property
    def login_open(self) -> bool:
        return bool(self.errors.keys() & LOGIN_FIELDS)

    @property
    def folded_open(self) -> bool:
        """Whether the folded part holds an error, or a setting that somebody should see."""
        there = self.destination
        return bool(self.errors.keys() & FOLDED) or bool(there and (there.proxy or there.insecure or there.ca_pem))

    def wish(self) -> destinations.Wish:
        said = self.cleaned_data
        return destinations.Wish(
            address=said["address"],
            label=said["label"] or (self.destination.name if self.destination else said["name"]),
            insecure=said["insecure"],
            ca_pem=said["ca_pem"],
            proxy=said["proxy"],
            login=self.asked_login(self.present, self.present),
        )


class RuleForm(forms.Form):
    """Which mirror goes there, under which name, and when."""

    mirror = forms.ChoiceField(label="Mirror")
    target = forms.CharField(
        label="Path and tag there",
        max_length=300,
        help_text="Behind the destination's own path. {repository}, {name}, {tag}, {version} and {date} stand for the "
        "mirror's.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    extra_tags = forms.CharField(
        label="Further tags",
        max_length=700,
        required=False,
        help_text="One space between two, such as: latest {tag}-{date}. All name the same content.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    automatic = forms.BooleanField(
        label="After every successful sync",
        required=False,
        help_text="Otherwise it is pushed by hand only.",
    )

    def __init__(self, data: Any = None, *, rule: PushRule | None = None, mirrors: list[Mirror] | None = None) -> None:
        initial = {"target": DEFAULT_TARGET, "automatic": True}
        if rule is not None:
            initial = {"target": rule.target, "extra_tags": rule.extra_tags, "automatic": rule.automatic}
        super().__init__(data, initial=initial)
        if rule is not None:
            del self.fields["mirror"]
        else:
            self.fields["mirror"].choices = [(mirror.name, mirror.label) for mirror in mirrors or ()]  # type: ignore[attr-defined]

    def wish(self) -> push_rules.Wish:
        said = self.cleaned_data
        return push_rules.Wish(said["target"], said["extra_tags"], said["automatic"])
