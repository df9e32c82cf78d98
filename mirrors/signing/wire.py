"""SSH's way of writing values (RFC 4251, section 5), read exactly: every form but the shortest is refused."""


class WireError(ValueError):
    """Bytes are not what this form allows."""


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def mpint(number: int) -> bytes:
    """A number that is not negative."""
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big") if number else b"")


class Reader:
    """Takes values off the front of `data`; `end` says that nothing may follow."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise WireError("it ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        return self.take(self.uint32())

    def text(self) -> str:
        """A string of printable ASCII, which every name in these formats is."""
        data = self.string()
        if not data.isascii() or not data.decode("ascii").isprintable():
            raise WireError("a name in it is none")
        return data.decode("ascii")

    def mpint(self) -> int:
        data = self.string()
        number = int.from_bytes(data, "big")
        if string(data) != mpint(number):
            raise WireError("a number in it is not in its shortest form")
        return number

    def end(self) -> None:
        if self._at != len(self._data):
            raise WireError("something follows its end")
