"""What HTTP needs of a Twisted transport."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IAddress
from twisted.protocols.policies import ProtocolWrapper


class Transport(Protocol):
    """The methods of a transport that are called: parts of ITransport, IConsumer and IPushProducer."""

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
    """Return the number of bytes written to a transport that are still in this process, or 0 if it is unknown.

    Below TLS they are counted encrypted. No interface of Twisted reports this, so private attributes are read, and only
    when metrics are requested.
    """
    if isinstance(transport, ProtocolWrapper):
        return unsent_bytes(transport.transport)
    if isinstance(transport, FileDescriptor):
        inside: Any = transport
        waiting: int = len(inside.dataBuffer) - inside.offset + getattr(inside, "_tempDataLen", 0)
        return waiting
    reported = getattr(transport, "unsent_bytes", 0)
    return reported if isinstance(reported, int) else 0
