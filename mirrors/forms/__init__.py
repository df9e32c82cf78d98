"""What people type into pages. Forms only take text apart; what may be kept is said by the operations they call."""

from mirrors.forms.access import TokenForm
from mirrors.forms.mirror import MirrorForm, compact, rhythm
from mirrors.forms.people import LoginForm, PasswordForm, PersonForm, RoleForm

__all__ = ["LoginForm", "MirrorForm", "PasswordForm", "PersonForm", "RoleForm", "TokenForm", "compact", "rhythm"]
