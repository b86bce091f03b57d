"""What HTTP needs of a Twisted transport."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IAddress
from twisted.protocols.policies import ProtocolWrapper


class Transport(Protocol):
    """What is asked of a transport: parts of ITransport, IConsumer and IPushProducer."""

    def write(self, data: bytes) -> None:
        """See ITransport."""

    def loseConnection(self) -> None:
        """See ITransport."""

    def abortConnection(self) -> None:
        """See IAbortingTransport."""

    def getPeer(self) -> IAddress:
        """See ITransport."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """See IConsumer."""

    def unregisterProducer(self) -> None:
        """See IConsumer."""

    def pauseProducing(self) -> None:
        """See IPushProducer."""

    def resumeProducing(self) -> None:
        """See IPushProducer."""


def unsent_bytes(transport: object) -> int:
    """The bytes, 0 when that is unknown. Below TLS they are counted encrypted."""
    if isinstance(transport, ProtocolWrapper):
        return unsent_bytes(transport.transport)
    if isinstance(transport, FileDescriptor):
        inside: Any = transport
        waiting: int = len(inside.dataBuffer) - inside.offset + getattr(inside, "_tempDataLen", 0)
        return waiting
    told = getattr(transport, "unsent_bytes", 0)
    return told if isinstance(told, int) else 0
