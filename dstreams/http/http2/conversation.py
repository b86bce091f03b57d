"""h2's side of a connection: frames, their compression, and windows."""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, Event
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from dstreams.http.http1.limits import HttpLimits

MAX_STREAMS = 100
"""Requests at a time on one connection; what RFC 9113 (section 6.5.2) recommends as the least."""

STREAM_WINDOW = 256 * 1024
CONNECTION_WINDOW = 1024 * 1024
"""How many bytes of bodies a client may send ahead, on one stream and on all of them together."""


class Conversation(H2Connection):
    """h2's connection, which lets streams that are open go on when one side says that it will open no more."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Any], list[Event]]:
        """Pass the news on. h2 would regard the connection as closed, and refuse to send what is under way."""
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        return [], [event]

    @property
    def awaits_too_much(self) -> bool:
        """Whether the frame that is arriving is longer than allowed: h2 says so when it is complete, at 16 MiB."""
        arrived = self.incoming_buffer._data  # noqa: SLF001 (its only way to be known)
        return len(arrived) >= 3 and int.from_bytes(arrived[:3], "big") > self.max_inbound_frame_size


def begin(limits: HttpLimits) -> Conversation:
    """h2's side of a new connection, with what the client may do in line to be sent."""
    # What we send is right by construction (lower-case names, no connection headers); checking it takes as long as
    # the rest of a small response.
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
