"""Sends what answers leave behind, to any number of clients at once, each as fast as it takes it.

A few of them, so that a disk that must be waited for holds up some downloads and never a page.
"""

import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable

from airgap.running.serving.channel import STALL_SECONDS, Channel

# Answers in memory that their clients do not take, in bytes for each sender.
MOST_HELD = 32 << 20
Then = Callable[[bool], None]


class Sender(threading.Thread):
    """`take` gives it a channel with something left; `then(True)` is called from its thread when all of that was handed
    to the network, `then(False)` when the client was gone, or took nothing for STALL_SECONDS."""

    def __init__(self, number: int) -> None:
        super().__init__(name=f"sender-{number}", daemon=True)
        self._selector = selectors.DefaultSelector()
        self._inbox: deque[tuple[Channel, Then]] = deque()
        self._moved: dict[Channel, float] = {}
        self._woken, self._wake = os.pipe()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self.load = 0

    def take(self, channel: Channel, then: Then) -> None:
        """From any thread."""
        self.load += 1
        self._inbox.append((channel, then))
        try:
            os.write(self._wake, b"\0")
        except BlockingIOError:
            # The pipe is full: it is awake.
            pass

    def run(self) -> None:
        looked = time.monotonic()
        while True:
            for key, _ in self._selector.select(1.0):
                if key.fileobj == self._woken:
                    self._begin_new_ones()
                else:
                    self._go_on(*key.data)
            if time.monotonic() - looked >= 1.0:
                looked = time.monotonic()
                self._give_up(looked - STALL_SECONDS)

    def _begin_new_ones(self) -> None:
        os.read(self._woken, 4096)
        while self._inbox:
            channel, then = self._inbox.popleft()
            try:
                self._selector.register(channel.sock, channel.wants, (channel, then))
            except (OSError, ValueError):
                self._end(channel, then, False, registered=False)
            else:
                self._go_on(channel, then)

    def _go_on(self, channel: Channel, then: Then) -> None:
        wanted = channel.wants
        try:
            done = channel.push()
        except OSError:
            self._end(channel, then, False)
            return
        if done:
            self._end(channel, then, True)
            return
        # Put at the end: the first one is the one that has not moved for longest.
        self._moved.pop(channel, None)
        self._moved[channel] = time.monotonic()
        if channel.wants != wanted:
            self._selector.modify(channel.sock, channel.wants, (channel, then))

    def _give_up(self, before: float) -> None:
        """Whoever took nothing since then, and while answers fill the memory, whoever took nothing for longest."""
        held = sum(channel.held_bytes for channel in self._moved)
        for channel, moved in list(self._moved.items()):
            if moved < before or (held > MOST_HELD and channel.held_bytes):
                held -= channel.held_bytes
                _, then = self._selector.get_key(channel.sock).data
                self._end(channel, then, False)

    def _end(self, channel: Channel, then: Then, well: bool, *, registered: bool = True) -> None:
        if registered:
            self._selector.unregister(channel.sock)
        self._moved.pop(channel, None)
        self.load -= 1
        then(well)
