"""The transfer bundle: what one is made of, and its bytes. README.md beside this file tells how it is put together."""

from mirrors.bundle.compose import compose, folder_name, with_signature
from mirrors.bundle.composition import FORMAT, Composition, Member, Recipe
from mirrors.bundle.contents import BundledBlob, BundledSnapshot, BundleError, Signer

__all__ = [
    "FORMAT",
    "BundleError",
    "BundledBlob",
    "BundledSnapshot",
    "Composition",
    "Member",
    "Recipe",
    "Signer",
    "compose",
    "folder_name",
    "with_signature",
]
