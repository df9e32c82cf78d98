"""What people type about themselves and each other."""

from typing import Any

from django import forms

from mirrors.models import Role


class LoginForm(forms.Form):
    username = forms.CharField(
        label="User name",
        max_length=150,
        widget=forms.TextInput(attrs={"autocomplete": "username", "autocapitalize": "none", "autofocus": True}),
    )
    password = forms.CharField(
        max_length=4096,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )


class PasswordForm(forms.Form):
    """One's own password: the old one once, the new one twice."""

    old_password = forms.CharField(
        label="Present password",
        max_length=4096,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password", "autofocus": True}),
    )
    new_password1 = forms.CharField(
        label="New password",
        max_length=4096,
        strip=False,
        help_text="At least ten characters, not a common one. A sentence is easier to keep in mind than a puzzle.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    new_password2 = forms.CharField(
        label="New password, again",
        max_length=4096,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        first, second = cleaned.get("new_password1"), cleaned.get("new_password2")
        if first and second and first != second:
            self.add_error("new_password2", "The two new passwords differ. Type the same one twice.")
        return cleaned


ROLE_HELP = {
    Role.VIEWER: "looks",
    Role.OPERATOR: "also syncs, stops and exports",
    Role.ADMINISTRATOR: "also changes mirrors and people",
}
ROLE_CHOICES = [(role.value, f"{role.label}: {ROLE_HELP[role]}") for role in Role]


class PersonForm(forms.Form):
    username = forms.CharField(
        label="User name",
        max_length=150,
        help_text="Letters, digits and @ . + - _",
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none", "autofocus": True}),
    )
    role = forms.ChoiceField(choices=ROLE_CHOICES, initial=Role.VIEWER, widget=forms.RadioSelect)
    password = forms.CharField(
        max_length=4096,
        strip=False,
        required=False,
        help_text="Empty: a random one is made, shown once, and changed by its owner at the first login.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=ROLE_CHOICES, widget=forms.RadioSelect)
