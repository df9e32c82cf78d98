"""What people type into pages. Forms only take text apart; what may be kept is said by the operations they call."""

from mirrors.forms.access import TokenForm
from mirrors.forms.keys import ElsewhereForm, SignatureForm, TrustForm
from mirrors.forms.mirror import MirrorForm, compact, rhythm
from mirrors.forms.people import LoginForm, PasswordForm, PersonForm, RoleForm

__all__ = [
    "ElsewhereForm",
    "LoginForm",
    "MirrorForm",
    "PasswordForm",
    "PersonForm",
    "RoleForm",
    "SignatureForm",
    "TokenForm",
    "TrustForm",
    "compact",
    "rhythm",
]
