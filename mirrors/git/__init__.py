"""One commit of a git repository over HTTP: asked for, received as a pack, read with bounds. No checkout, no hooks, no
configuration, and no git program (docs/decisions/0018-git-is-read-by-ourselves.md)."""

from mirrors.git.addresses import GitAddress, parse_getter, parse_source_address
from mirrors.git.faults import GitError
from mirrors.git.packs import Bounds, Pack
from mirrors.git.remote import Head, Remote
from mirrors.git.trees import Tree

__all__ = ["Bounds", "GitAddress", "GitError", "Head", "Pack", "Remote", "Tree", "parse_getter", "parse_source_address"]
