"""A commit's files: the tree walked with bounds, every name looked at before anything is made of it.

A tree may name itself many times over, so that ten small objects are a billion files; what counts is what is walked.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mirrors.git.faults import GitError
from mirrors.git.packs import Pack

LATEST = 8**11 - 1  # what a tar's time field holds
_REGULAR = frozenset({"100644", "100755", "100664"})
_DIRECTORY, _LINK, _SUBMODULE = "40000", "120000", "160000"
# What a checkout would take for the repository's own folder, on some system (git's CVE-2014-9390).
_OWN_FOLDER = re.compile(r"\.git|git~[0-9]+", re.IGNORECASE)


@dataclass(frozen=True)
class TreeFile:
    """A regular file; `path` is relative to the folder that was asked for."""

    path: str
    name: str
    size: int


class Tree:
    """The files of one commit below `subdir`, sorted by path.

    `left_out` are links and submodules, which are not followed. `committed_at` is the committer's time in seconds
    since 1970.
    """

    def __init__(self, pack: Pack, commit: str, subdir: str = "") -> None:
        self._pack = pack
        self._entries = 0
        self._bytes = 0
        self.left_out: list[str] = []
        tree, self.committed_at = _commit(pack, commit)
        for part in subdir.split("/") if subdir else []:
            folders = {name: child for mode, name, child in self._names(tree) if mode == _DIRECTORY}
            if part not in folders:
                raise GitError(f"There is no folder {subdir[:80]!r} in this git repository.")
            tree = folders[part]
        self.files = sorted(self._walk(tree, "", 0), key=lambda file: file.path.encode())

    def read(self, file: TreeFile) -> bytes:
        return self._pack.content(file.name, "blob")

    def find(self, path: str) -> TreeFile | None:
        return next((file for file in self.files if file.path == path), None)

    def _walk(self, tree: str, folder: str, depth: int) -> Iterator[TreeFile]:
        bounds = self._pack.bounds
        if depth > bounds.depth:
            raise GitError(f"The git repository has folders nested deeper than {bounds.depth} levels.")
        for mode, name, child in self._names(tree):
            path = folder + name
            if len(path) > 4096:
                raise GitError("The git repository has a path longer than 4096 characters.")
            if mode == _DIRECTORY:
                yield from self._walk(child, path + "/", depth + 1)
            elif mode in _REGULAR:
                size = self._pack.size(child)
                self._bytes += size
                if self._bytes > bounds.tree_bytes:
                    raise GitError(
                        f"The files of the git repository are larger than {bounds.tree_bytes:,} bytes together."
                    )
                yield TreeFile(path, child, size)
            elif mode in (_LINK, _SUBMODULE):
                self.left_out.append(path)
            else:
                raise GitError(f"The git repository has {path[:80]!r} of the unknown kind {mode[:10]!r}.")

    def _names(self, tree: str) -> Iterator[tuple[str, str, str]]:
        """(mode, name, id) of every entry of one tree."""
        content = self._pack.content(tree, "tree")
        at = 0
        seen: set[str] = set()
        while at < len(content):
            self._entries += 1
            if self._entries > self._pack.bounds.entries:
                raise GitError(f"The git repository has more than {self._pack.bounds.entries:,} files and folders.")
            space = content.find(b" ", at, at + 8)
            end = content.find(b"\0", space + 1, space + 1026) if space > at else -1
            if end < 0 or end + 21 > len(content):
                raise GitError(f"The git tree {tree[:12]} is damaged.")
            mode, name = content[at:space].decode("latin-1"), _checked_name(content[space + 1 : end])
            if name in seen:
                raise GitError(f"The git repository names {name[:80]!r} twice in one folder.")
            seen.add(name)
            yield mode, name, content[end + 1 : end + 21].hex()
            at = end + 21


def _checked_name(raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise GitError(f"The git repository has a file name that is not UTF-8: {raw[:60]!r}.") from None
    if not name or name in (".", "..") or "/" in name or "\\" in name or not name.isprintable():
        raise GitError(f"The git repository has the hostile file name {name[:60]!r}.")
    if _OWN_FOLDER.fullmatch(name):
        raise GitError(f"The git repository has a file or folder called {name!r}, which no honest one has.")
    return name


def _commit(pack: Pack, name: str) -> tuple[str, int]:
    """The tree of a commit, and when it was committed."""
    content = pack.content(name, "commit")
    head = content.partition(b"\n\n")[0]
    tree = re.match(rb"tree ([0-9a-f]{40})(?:\n|\Z)", head)
    when = re.search(rb"\ncommitter [^\n]*> ([0-9]{1,12}) [+-][0-9]{4}(?:\n|\Z)", head)
    if tree is None:
        raise GitError(f"The git commit {name[:12]} names no tree.")
    return tree[1].decode(), min(int(when[1]), LATEST) if when else 0
