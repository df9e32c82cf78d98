"""What is said of a release that cannot be mirrored as it stands."""


class ReleaseError(Exception):
    """`code`: source, platform, version, checksums or signature; the text says what would be right."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
