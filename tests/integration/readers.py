"""Many live readers in one process, each on a connection of its own, checking every byte they get."""

from __future__ import annotations

import json
import re
from typing import cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from dstreams.protocol.offsets import format_offset

_DATA = re.compile(rb"event: data\ndata:(\[.*\])\nid:.*\n\n")
_NEXT = re.compile(rb"stream-next-offset: ([0-9_]+)", re.IGNORECASE)
_LENGTH = re.compile(rb"content-length: ([0-9]+)", re.IGNORECASE)
_CURSOR = re.compile(rb"stream-cursor: ([0-9]+)", re.IGNORECASE)


@define(eq=False)
class Progress:
    """What all readers together are waiting for.

    :param total: how many messages each has to get.
    :param missing: how many readers haven't got all.
    """

    total: int
    missing: int
    done: Deferred[None] = field(factory=Deferred)
    errors: list[str] = field(factory=list)

    def finished(self) -> None:
        """One more reader has everything."""
        self.missing -= 1
        if not self.missing:
            self.done.callback(None)

    def failed(self, why: str) -> None:
        """A reader got something wrong."""
        self.errors.append(why)
        if not self.done.called:
            self.done.errback(AssertionError(why))


class _Reader(Protocol):
    """What both kinds share: messages must be 0, 1, 2, … without a gap or a repetition."""

    def __init__(self, path: str, progress: Progress) -> None:
        self._path = path
        self._progress = progress
        self._buffer = b""
        self.next = 0

    def connectionMade(self) -> None:
        self._ask()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.next < self._progress.total:
            self._progress.failed(f"a reader was cut off after {self.next} messages: {reason.getErrorMessage()}")

    def _ask(self) -> None:
        raise AssertionError("the kinds of readers do this")

    def _send(self, query: str) -> None:
        request = f"GET {self._path}?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        cast("ITransport", self.transport).write(request.encode())

    def _got(self, messages: list[int]) -> None:
        for message in messages:
            if message != self.next:
                self._progress.failed(f"got message {message} where {self.next} was expected")
                return
            self.next += 1
        if messages and self.next == self._progress.total:
            self._progress.finished()


class SseReader(_Reader):
    """Follows by Server-Sent Events."""

    def _ask(self) -> None:
        self._send("offset=-1&live=sse")

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.rfind(b"\n\n")
        if end < 0:
            return
        complete, self._buffer = self._buffer[: end + 2], self._buffer[end + 2 :]
        for found in _DATA.findall(complete):
            self._got(json.loads(found))


class LongPollReader(_Reader):
    """Follows by one long-poll after the other, on one connection."""

    def __init__(self, path: str, progress: Progress) -> None:
        super().__init__(path, progress)
        self._offset = format_offset(0).decode()
        self._cursor = ""

    def _ask(self) -> None:
        self._send(f"offset={self._offset}&live=long-poll{self._cursor}")

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        if len(body) < size:
            return
        self._buffer = b""
        status = head.split(b" ", 2)[1]
        if status not in (b"200", b"204"):
            self._progress.failed(f"a long-poll was answered with {head!r}")
            return
        self._offset = _NEXT.search(head)[1].decode()  # type: ignore[index]
        cursor = _CURSOR.search(head)
        self._cursor = f"&cursor={cursor[1].decode()}" if cursor else ""
        if status == b"200":
            self._got(json.loads(body))
        if self.next < self._progress.total:
            self._ask()


class StalledReader(Protocol):
    """Asks for everything and reads nothing."""

    def __init__(self, path: str) -> None:
        self._path = path

    def connectionMade(self) -> None:
        transport = cast("ITransport", self.transport)
        request = f"GET {self._path}?offset=-1&live=sse HTTP/1.1\r\nHost: localhost\r\n\r\n"
        transport.write(request.encode())
        self.transport.pauseProducing()  # type: ignore[union-attr]


class Making(Factory[Protocol]):
    """Gives out protocols that were made before."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._made = protocol

    def buildProtocol(self, addr: object) -> Protocol:
        return self._made
