"""Sending files through the channel's sink."""

from __future__ import annotations

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from dstreams.http.http1.outlet import Outlet
from dstreams.http.http1.sink import ChannelSink
from dstreams.storage.interface import FileRange


class Sending(StringTransport):
    """A transport that sends files: dots, five at a time."""

    def send_file(self, descriptor: int, offset: int, size: int) -> int:
        sent = min(size, 5)
        self.write(b"." * sent)
        return sent


class Opened:
    """Something with a descriptor."""

    def fileno(self) -> int:
        return 3


def part(size: int) -> FileRange:
    return FileRange(Opened(), 0, size)


def sink_on(transport: object, missing: int | None = 20, *, chunked: bool = False) -> tuple[ChannelSink, Outlet]:
    outlet = Outlet(transport)  # type: ignore[arg-type]
    return ChannelSink(outlet, chunked, missing, lambda _: None), outlet


class SendFileTests:
    def test_sends(self) -> None:
        """What was sent counts for the length that was announced."""
        transport = Sending()
        sink, _ = sink_on(transport, 8)
        assert sink.sends_files
        assert sink.send_file(part(8)) == 5
        assert sink.send_file(part(4)) == 0  # more than is owed
        assert sink.send_file(part(3)) == 3
        assert transport.value() == b"." * 8
        sink.finish()

    def test_needs_a_length(self) -> None:
        """A body in chunks can't have a file in it, and one that ends with the connection doesn't."""
        for chunked in (False, True):
            sink, _ = sink_on(Sending(), None, chunked=chunked)
            assert not sink.sends_files
            assert sink.send_file(part(1)) == 0

    def test_waits_for_what_was_written_before(self) -> None:
        """Nothing overtakes what is held back, or waits in the transport."""
        transport = Sending()
        sink, outlet = sink_on(transport)
        outlet.cork()
        sink.write(b"head")
        assert sink.send_file(part(5)) == 0
        outlet.flush()
        assert sink.send_file(part(5)) == 5
        outlet.blocked = True
        assert sink.send_file(part(5)) == 0
        assert transport.value() == b"head....."

    def test_body_that_is_over(self) -> None:
        """After its end nothing is sent."""
        transport = Sending()
        sink, _ = sink_on(transport)
        sink.close()
        assert sink.send_file(part(5)) == 0
        assert transport.value() == b""

    def test_plain_transport(self) -> None:
        """One that can't send files is known as such."""
        sink, _ = sink_on(StringTransport())
        assert not sink.sends_files

    def test_wrapped_transport(self) -> None:
        """What wraps a transport, as TLS does, isn't bypassed, though it passes on what it doesn't know."""
        wrapper = ProtocolWrapper(WrappingFactory(Factory.forProtocol(Protocol)), Protocol())
        wrapper.transport = Sending()  # type: ignore[assignment]
        assert hasattr(wrapper, "send_file")
        sink, _ = sink_on(wrapper)
        assert not sink.sends_files
