"""How a row of the database says who we are at another host."""

from __future__ import annotations

from django.db import models


class LoginKind(models.TextChoices):
    """What is sent: nothing, HTTP Basic, a fixed Bearer, or what a docker config file says of that host."""

    NONE = "none", "no login"
    BASIC = "basic", "user name and password"
    TOKEN = "token", "a token"
    DOCKER = "docker", "a docker config file"


class WithLogin(models.Model):
    """A row that logs in somewhere. `secret_sealed` is the password, the token or the docker config, encrypted with
    the key outside the database; what may stand in it is said by mirrors/logins.py."""

    login = models.CharField(max_length=10, choices=LoginKind.choices, default=LoginKind.NONE)
    username = models.CharField(max_length=200, blank=True)
    secret_sealed = models.TextField(blank=True)

    class Meta:
        abstract = True

    @property
    def login_text(self) -> str:
        """For administrators: `as robot`, `with a token`, `with a docker config file`; "" for none. No secret."""
        return f"as {self.username}" if self.login == LoginKind.BASIC else self.login_means

    @property
    def login_means(self) -> str:
        """For everybody, so without the user name."""
        if self.login == LoginKind.NONE:
            return ""
        return "with a password" if self.login == LoginKind.BASIC else f"with {LoginKind(self.login).label}"
