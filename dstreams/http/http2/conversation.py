"""h2's side of a connection: frames, their compression, and windows."""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, Event
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame

from dstreams.http.transport.limits import HttpLimits

MAX_STREAMS = 100
"""Maximum number of concurrent requests on one connection: the minimum that RFC 9113 (section 6.5.2) recommends."""

_FRAME_HEAD_BYTES = 9

STREAM_WINDOW = 256 * 1024
CONNECTION_WINDOW = 1024 * 1024
"""Maximum number of bytes of bodies that a client may send ahead, on one stream and on all of them together."""


class _Frames(FrameBuffer):
    """h2's buffer of received bytes, changed to return one frame at a time."""

    def __init__(self) -> None:
        super().__init__(server=True)
        self.asked = False
        self.control = 0
        """The number of control frames returned: those that carry neither a request nor a part of its body."""

    def __next__(self) -> Frame:
        if not self.asked:
            raise StopIteration
        self.asked = False
        return super().__next__()

    def _update_header_buffer(self, f: Frame | None) -> Frame | None:
        """Count the frame, which h2 has just read."""
        request = isinstance(f, HeadersFrame) or (isinstance(f, DataFrame) and (f.data or "END_STREAM" in f.flags))
        if not request:
            self.control += 1
        return super()._update_header_buffer(f)

    @property
    def holds_frame(self) -> bool:
        """Whether a complete frame is buffered, or a part of one that is longer than allowed."""
        data = self._data
        if len(data) < _FRAME_HEAD_BYTES:
            return False
        length = int.from_bytes(data[:3], "big")
        return len(data) >= _FRAME_HEAD_BYTES + length


class Conversation(H2Connection):
    """h2's connection, changed so that open streams continue after a GOAWAY.

    It reads one frame at a time, so that the same bytes have the same effect however they are cut.
    """

    incoming_buffer: _Frames

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self.incoming_buffer = _Frames()

    def feed(self, data: bytes) -> None:
        """Add received bytes, to be read by :meth:`read_frame`.

        :raises ProtocolError: the client doesn't speak HTTP/2.
        """
        self.receive_data(data)

    def read_frame(self) -> list[Event]:
        """Read one frame; call it only if ``holds_frame`` is true.

        :return: its events; none for a part of something.
        :raises ProtocolError: the frame breaks the protocol.
        """
        self.incoming_buffer.asked = True
        return self.receive_data(b"")

    @property
    def holds_frame(self) -> bool:
        """Whether a complete frame is waiting to be read."""
        return self.incoming_buffer.holds_frame

    def take_control_frames(self) -> int:
        """Return the number of control frames read since the last call."""
        count, self.incoming_buffer.control = self.incoming_buffer.control, 0
        return count

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Any], list[Event]]:
        """Report the event only. h2 would regard the connection as closed, and reject the output of open streams."""
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        return [], [event]

    @property
    def awaits_too_much(self) -> bool:
        """Whether the arriving frame is longer than allowed. h2 would report it only when all 16 MiB have arrived."""
        arrived = self.incoming_buffer._data  # noqa: SLF001 (its only way to be known)
        return len(arrived) >= 3 and int.from_bytes(arrived[:3], "big") > self.max_inbound_frame_size


def begin(limits: HttpLimits) -> Conversation:
    """Return h2's side of a new connection, with the server's settings queued."""
    # The output is correct by construction (lower-case names, no connection headers); checking it takes as long as the
    # rest of a small response.
    config = H2Configuration(
        client_side=False,
        header_encoding=None,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
    )
    conversation = Conversation(config)
    conversation.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.max_head_bytes,
        },
    )
    conversation.decoder.max_header_list_size = limits.max_head_bytes
    conversation.initiate_connection()
    conversation.increment_flow_control_window(CONNECTION_WINDOW - 65_535)
    return conversation
