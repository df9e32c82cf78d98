"""What is kept of those who download."""

from django import forms

MOST_DAYS = 1825


class ConsumersForm(forms.Form):
    count = forms.BooleanField(
        label="Count who downloads what",
        required=False,
        help_text="Without it nothing is known of scanners; what was kept of them so far is removed.",
    )
    anonymise = forms.BooleanField(
        label="Keep networks instead of addresses",
        required=False,
        help_text="10.1.2.0/24 instead of 10.1.2.3 (IPv6: /48). Scanners of one network then count as one. "
        "What was kept with addresses is removed.",
    )
    days = forms.IntegerField(
        label="Days",
        min_value=1,
        max_value=MOST_DAYS,
        help_text="A consumer that has taken nothing for so long is forgotten.",
    )
