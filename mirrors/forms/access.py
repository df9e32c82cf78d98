"""A new access token."""

from datetime import timedelta
from typing import cast

from django import forms

LIVES = (("", "Never"), ("30", "In 30 days"), ("90", "In 90 days"), ("365", "In a year"))


class TokenForm(forms.Form):
    name = forms.CharField(
        max_length=80,
        help_text="Who reads with it, such as ci-runners or plant-7: lower-case letters, digits, - and _.",
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false", "autofocus": True}
        ),
    )
    expires = forms.ChoiceField(
        choices=LIVES,
        required=False,
        initial="365",
        help_text="A scanner whose token has expired gets no data; the list says ahead when that will be.",
        widget=forms.RadioSelect,
    )

    def life(self) -> timedelta | None:
        days = cast(str, self.cleaned_data["expires"])
        return timedelta(days=int(days)) if days else None
