"""Signatures as OpenSSH makes and verifies them (`ssh-keygen -Y`), keys as it keeps them, and its agent.

README.md beside this file tells what is accepted and why.
"""

from mirrors.signing.agent import Agent, AgentError
from mirrors.signing.keys import Key, KeyRefused, PublicKey
from mirrors.signing.signatures import (
    BUNDLE,
    KIT,
    LONGEST,
    MalformedSignature,
    SignatureError,
    UnknownKey,
    WrongSignature,
    check,
    sign,
    tidied,
    verify,
)
from mirrors.signing.signed_by import SignedBy, Standing

__all__ = [
    "BUNDLE",
    "KIT",
    "LONGEST",
    "Agent",
    "AgentError",
    "Key",
    "KeyRefused",
    "MalformedSignature",
    "PublicKey",
    "SignatureError",
    "SignedBy",
    "Standing",
    "UnknownKey",
    "WrongSignature",
    "check",
    "sign",
    "tidied",
    "verify",
]
