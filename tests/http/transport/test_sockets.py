"""How much waits in a transport."""

from __future__ import annotations

from typing import cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from dstreams.http.transport.sockets import unsent_bytes


class StuckDescriptor(FileDescriptor):
    """A descriptor that takes a number of bytes and then nothing more."""

    def __init__(self, takes: int) -> None:
        super().__init__(reactor=None)
        self.takes = takes
        self.connected = True

    def startWriting(self) -> None:  # noqa: N802 (Twisted's name)
        pass

    def stopWriting(self) -> None:  # noqa: N802
        pass

    def writeSomeData(self, data: bytes) -> int:  # noqa: N802
        taken, self.takes = min(len(data), self.takes), max(0, self.takes - len(data))
        return taken


class UnsentBytesTests:
    """Transports of several kinds."""

    def test_descriptor(self) -> None:
        """What a Twisted transport holds: in its buffer, half sent, or not looked at yet."""
        descriptor = StuckDescriptor(3)
        assert unsent_bytes(descriptor) == 0
        descriptor.write(b"12345")
        assert unsent_bytes(descriptor) == 5
        descriptor.doWrite()
        assert unsent_bytes(descriptor) == 2
        descriptor.write(b"67")
        assert unsent_bytes(descriptor) == 4

    def test_wrapped(self) -> None:
        """Below TLS, or any other wrapper, it is the transport at the bottom that tells."""
        descriptor = StuckDescriptor(0)
        descriptor.write(b"12345")
        wrapper = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
        wrapper.transport = cast("ITransport", descriptor)
        assert unsent_bytes(wrapper) == 5

    def test_told(self) -> None:
        """A transport that can tell is asked; one that can't has nothing."""

        class Telling(StringTransport):
            unsent_bytes = 7

        assert unsent_bytes(Telling()) == 7
        assert unsent_bytes(StringTransport()) == 0
