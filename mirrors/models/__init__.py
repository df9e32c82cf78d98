"""Floor 1: rows, constraints, named queries and small state changes. No network, no files, no signals."""

from mirrors.models.audit import AuditEntry
from mirrors.models.bundle import Bundle, BundleBlob, BundlePart, BundleSnapshot, Export
from mirrors.models.consumer import Consumer, LogPlace, Taking
from mirrors.models.destination import Destination, PushRule, PushRun, PushStep
from mirrors.models.importing import Import, ImportBlob, ImportedSnapshot, ImportStep, Upload
from mirrors.models.key import SigningKey, TrustedKey
from mirrors.models.login import LoginKind, WithLogin
from mirrors.models.mirror import Mirror, Source
from mirrors.models.presence import with_rows
from mirrors.models.receipt import IssuedReceipt, Receipt, Receipting
from mirrors.models.run import Run, RunStep, Step, SyncRun
from mirrors.models.serving import AccessToken, Serving
from mirrors.models.site import Site, SiteHolding, Transfer
from mirrors.models.snapshot import LayerFacts, Snapshot, SnapshotBlob
from mirrors.models.user import Role, User

__all__ = [
    "AccessToken",
    "AuditEntry",
    "Bundle",
    "BundleBlob",
    "BundlePart",
    "BundleSnapshot",
    "Consumer",
    "Destination",
    "Export",
    "Import",
    "ImportBlob",
    "ImportStep",
    "ImportedSnapshot",
    "IssuedReceipt",
    "LayerFacts",
    "LogPlace",
    "LoginKind",
    "Mirror",
    "PushRule",
    "PushRun",
    "PushStep",
    "Receipt",
    "Receipting",
    "Role",
    "Run",
    "RunStep",
    "Serving",
    "SigningKey",
    "Site",
    "SiteHolding",
    "Snapshot",
    "SnapshotBlob",
    "Source",
    "Step",
    "SyncRun",
    "Taking",
    "Transfer",
    "TrustedKey",
    "Upload",
    "User",
    "WithLogin",
    "with_rows",
]
