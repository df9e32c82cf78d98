"""How we log in somewhere, as a part of forms: of a mirror's sources, of a destination. Secrets only go in."""

from typing import Any

from django import forms

from mirrors import logins
from mirrors.logins import NO_LOGIN, Login
from mirrors.models import LoginKind

KEEP = "keep"
# What a view marks with sensitive_post_parameters.
SECRET_FIELDS = ("password", "token", "docker_config")
SECRET_OF: dict[str, str] = dict(zip((LoginKind.BASIC, LoginKind.TOKEN, LoginKind.DOCKER), SECRET_FIELDS, strict=True))
LOGIN_FIELDS = frozenset({"login", "username", *SECRET_FIELDS})


class WriteOnlyTextarea(forms.Textarea):
    """Never shows again what was typed into it, also when the form comes back with an error."""

    def format_value(self, value: Any) -> str:
        return ""


class LoginPart(forms.Form):
    """The fields, and `asked_login` for what they ask for. Rendered by templates/parts/login.html."""

    login = forms.ChoiceField(label="Login", required=False, initial=KEEP, widget=forms.RadioSelect)
    username = forms.CharField(
        label="User name", max_length=200, required=False, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )
    password = forms.CharField(
        max_length=logins.LONGEST_PASSWORD,
        strip=False,
        required=False,
        help_text="Kept encrypted, never shown again, and sent to that host only.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    token = forms.CharField(
        max_length=2 * logins.LONGEST_TOKEN,
        required=False,
        help_text="Sent as Bearer with every request. Kept encrypted, never shown again, and sent to that host only.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    docker_config = forms.CharField(
        label="Docker config",
        max_length=logins.LARGEST_CONFIG,
        required=False,
        help_text="The text of ~/.docker/config.json after `docker login`. Only the login for that host is taken from "
        "it; that is kept encrypted and never shown again.",
        widget=WriteOnlyTextarea(
            attrs={
                "rows": 4,
                "spellcheck": "false",
                "class": "mono",
                "placeholder": '{"auths": {"host": …}}',
            }
        ),
    )

    def offer_logins(self, present: Login) -> None:
        """Set the choices by what there is now."""
        kept = [(KEEP, "Leave it as it is"), (LoginKind.NONE, "No login")] if present.is_set else [(KEEP, "No login")]
        self.fields["login"].choices = [  # type: ignore[attr-defined]
            kept[0],
            (LoginKind.BASIC, "User name and password"),
            (LoginKind.TOKEN, "Token"),
            (LoginKind.DOCKER, "Docker config file"),
            *kept[1:],
        ]

    @property
    def sets_login(self) -> bool:
        return self.cleaned_data["login"] in (LoginKind.BASIC, LoginKind.TOKEN, LoginKind.DOCKER)

    def asked_login(self, before: Login, stored: Login = NO_LOGIN) -> Login:
        """The login that the fields ask for; `before` stays if they say so.

        `stored` is one kept for the same host: of the same kind and user, it goes on where no new secret is typed.
        """
        said = self.cleaned_data
        kind = str(said["login"] or KEEP)
        if kind == KEEP:
            return before
        if kind == LoginKind.NONE:
            return NO_LOGIN
        username = said["username"] if kind == LoginKind.BASIC else ""
        secret = said[SECRET_OF[kind]]
        goes_on = not secret and (stored.kind, stored.username) == (kind, username)
        return Login(kind, username, secret, stored.sealed if goes_on else "")
