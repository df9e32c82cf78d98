"""The one error of this package beside those of HTTP."""


class GitError(Exception):
    """A git repository, or what came of it, is not what can be mirrored; the message is a sentence that says why."""
