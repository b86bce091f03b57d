"""The objects that every operation gets besides its request."""

from __future__ import annotations

from attrs import field, frozen

from dstreams.protocol.names import NameLimits
from dstreams.runtime.timers import Clocks, TimerWheel
from dstreams.streams.streams import Streams


@frozen
class HttpSettings:
    """The configuration that HTTP operations need.

    :param base_path: where the streams are mounted: ``/v1/stream``, or ``/``.
    :param cache: ``no-store``, ``private`` or ``public``: who may cache the responses to reads.
    :param cors_origins: ``("*",)``, or the origins whose scripts may use this server.
    :param cors_credentials: whether scripts of the listed origins may send credentials.
    :param cors_allow_headers: request headers that scripts may send in addition to those of the protocol.
    :param long_poll_timeout: seconds until a long-poll is answered with 204.
    :param sse_lifetime: seconds after which an SSE stream ends and its reader reconnects; 0 for never.
    :param sse_heartbeat: seconds of silence after which an SSE reader gets a comment.
    :param max_answer_bytes: maximum number of stored bytes in one catch-up response, unless a message is larger.
    :param max_body_bytes: maximum length of a request body.
    """

    base_path: bytes = b"/v1/stream"
    name_limits: NameLimits = field(factory=NameLimits)
    cache: str = "no-store"
    cors_origins: tuple[str, ...] = ("*",)
    cors_credentials: bool = False
    cors_allow_headers: tuple[str, ...] = ()
    long_poll_timeout: float = 30.0
    sse_lifetime: float = 60.0
    sse_heartbeat: float = 15.0
    max_answer_bytes: int = 4 * 1024 * 1024
    max_body_bytes: int = 10 * 1024 * 1024

    @property
    def prefix(self) -> bytes:
        """The first part of every stream's path."""
        return prefix_of(self.base_path)


def prefix_of(base_path: bytes) -> bytes:
    """Return the first part of the paths of streams that are mounted at ``base_path``."""
    return base_path.rstrip(b"/") + b"/"


@frozen
class Context:
    """The engine, the settings and the clocks."""

    streams: Streams
    settings: HttpSettings
    wheel: TimerWheel
    clocks: Clocks = field(factory=Clocks)
