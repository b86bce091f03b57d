"""Sending files through the channel's sink."""

from __future__ import annotations

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from dstreams.http.http1.output_buffer import OutputBuffer
from dstreams.http.http1.sink import LARGE_WRITE_BYTES, ChannelSink
from dstreams.http.messages import Frame
from dstreams.runtime.timers import SLICE_SECONDS, TimerWheel
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


def sink_on(
    transport: object, missing: int | None = 20, *, chunked: bool = False, wheel: TimerWheel | None = None
) -> tuple[ChannelSink, OutputBuffer]:
    output = OutputBuffer(transport)  # type: ignore[arg-type]
    sink = ChannelSink(output, chunked, missing, lambda _: None, wheel or TimerWheel(Clock()), lambda: None)
    return sink, output


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
        sink, output = sink_on(transport)
        output.cork()
        sink.write(b"head")
        assert sink.send_file(part(5)) == 0
        output.flush()
        assert sink.send_file(part(5)) == 5
        output.blocked = True
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


class TurnTests:
    """A body's share of a turn of the reactor."""

    def setup_method(self) -> None:
        self.clock, self.time, self.calls = Clock(), 0.0, 0
        self.wheel = TimerWheel(self.clock, stopwatch=lambda: self.time)
        self.output = OutputBuffer(Sending())  # type: ignore[arg-type]
        self.sink = ChannelSink(self.output, True, None, lambda _: None, self.wheel, self.count)

    def count(self) -> None:
        self.calls += 1

    def next_turn(self) -> None:
        self.clock.advance(0)

    def end_turn(self) -> None:
        assert not self.wheel.turn_is_over()
        self.time += SLICE_SECONDS

    @pytest.mark.parametrize("shared", [False, True])
    def test_large_writes_end_with_the_turn(self, shared: bool) -> None:
        """A body whose client keeps up is interrupted at the end of the turn, and resumed in the next one."""
        data = b"x" * LARGE_WRITE_BYTES

        def write() -> bool:
            return self.sink.write_frame(Frame(data)) if shared else self.sink.write(data)

        assert write()
        self.end_turn()
        assert not write()
        assert not self.calls
        self.next_turn()
        assert self.calls == 1
        assert self.sink.wants_resumption()
        assert write()
        self.next_turn()
        assert self.calls == 1

    def test_small_writes_are_not_interrupted(self) -> None:
        """Events of a few bytes cost no check."""
        self.end_turn()
        assert self.sink.write(b"x" * (LARGE_WRITE_BYTES // 2))

    def test_others_do_not_keep_it_waiting(self) -> None:
        """A body whose turn has come is resumed although others have used the turn."""
        self.end_turn()
        assert not self.sink.write(b"x" * LARGE_WRITE_BYTES)
        self.next_turn()
        self.end_turn()
        assert self.sink.wants_resumption()

    def test_drained_client_waits_for_its_turn(self) -> None:
        """A transport that has sent everything resumes the body in a later turn, if this one is over."""
        self.output.blocked = True
        assert not self.sink.write(b"x")
        self.end_turn()
        self.output.blocked = False
        assert not self.sink.wants_resumption()
        assert not self.sink.wants_resumption()
        self.next_turn()
        assert self.calls == 1
        assert self.sink.wants_resumption()

    @pytest.mark.parametrize("ends", [False, True])
    def test_is_not_resumed_without_need(self, ends: bool) -> None:
        """A body that has ended, or whose client takes nothing, isn't resumed when its turn comes."""
        self.end_turn()
        assert not self.sink.write(b"x" * LARGE_WRITE_BYTES)
        if ends:
            self.sink.finish()
        else:
            self.output.blocked = True
        self.next_turn()
        assert not self.calls

    def test_no_file_is_sent_when_the_turn_is_over(self) -> None:
        """The kernel's sending counts for the turn as well."""
        sink, _ = sink_on(Sending(), wheel=self.wheel)
        assert sink.send_file(part(5))
        self.end_turn()
        assert not sink.send_file(part(5))
