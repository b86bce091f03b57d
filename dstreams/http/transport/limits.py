"""Limits on what a client may send, how much, and how slowly."""

from __future__ import annotations

from attrs import frozen

WRITE_PIECE_BYTES = 64 * 1024
"""Maximum number of bytes passed to a transport at a time. It equals what Twisted's transports buffer before they ask
for a pause, so one slow client never holds more than about twice as many."""

MAX_BLANK_LINES = 8
"""Maximum number of empty lines before a request line. RFC 9112 section 2.2 asks servers to ignore one, because of old
clients."""

MAX_CHUNK_LINE_BYTES = 1024
"""Maximum length of the line with a chunk's size and extensions. Eight digits and a signature fit."""

MAX_CHUNK_EXTENSIONS_BYTES = 16 * 1024
"""Maximum number of bytes of all chunk extensions of one body, which are read and discarded."""

MAX_TRAILER_BYTES = 8 * 1024
"""Maximum number of bytes of all trailer fields of one body, which are checked and discarded."""

MAX_KNOWN_BYTES = 16 * 1024 * 1024
"""Maximum number of bytes of memory for cached heads, and the same again for the heads of producers. It suffices for
15,000 streams that are appended to in turn. A head that is not cached takes 4 us more, as much as the rest of an
append."""

MAX_KNOWN_FIELDS_BYTES = 4 * 1024 * 1024
"""The same for the fields of heads without their request lines. Each client has only a few of them."""

MAX_KNOWN_HEAD_BYTES = 2048
"""Maximum length of a cached head."""


MAX_LINES_AT_ONCE = 256
"""Maximum number of lines of a chunked body (sizes, ends of chunks, trailers) that are read at a time."""

LARGE_READ_BYTES = 64 * 1024
"""Minimum size of a received segment after which more may follow in the same turn of the reactor. uvloop reads up to
250 KiB at a time, repeatedly while there is more; Twisted's reactors read up to 64 KiB, once a turn."""

LARGE_TLS_READ_BYTES = 8 * 1024
"""The same for data from TLS, which arrives in pieces of at most 16 KiB."""

STEP_SECONDS = 0.0005
"""Maximum seconds for which a connection continues its postponed work before the next one does."""


@frozen
class HttpLimits:
    """What a client may send, and how slowly. All times are in seconds.

    :param max_request_line_bytes: maximum length of method, target and version, otherwise 414; as in nginx and Apache.
    :param max_head_bytes: maximum length of the request line and all headers, otherwise 431. Large cookies and tokens
        fit.
    :param max_headers: maximum number of header lines, otherwise 431. Browsers send about 20, proxies add a dozen.
    :param head_timeout: maximum time from the first byte of a head to its end, otherwise 408, against slow-header
        attacks.
    :param last_head_timeout: the same, counted from the start of a shutdown. The server also waits that long for a
        request that is already on its way.
    :param body_timeout: maximum time without a byte of an announced body, otherwise 408. It covers the longest
        hand-over of a mobile client.
    :param min_body_rate: minimum average bytes per second of a body after the first ``body_timeout``, otherwise 408,
        against bodies that trickle for hours.
    :param idle_timeout: maximum time between two requests, after which the connection is closed without a response. It
        is longer than the 60 s after which common proxies close a connection, so that they close first.
    :param stall_timeout: maximum time during which a client receives nothing of a response, after which the connection
        is aborted.
    :param drain_bytes: maximum announced length of a rejected body that is read and discarded so that the connection
        can stay open. Reading it costs less than a new connection.
    :param linger_bytes: maximum number of bytes that are read and discarded after the last response. Closing earlier
        would reset the connection and destroy the response (RFC 9112 section 9.6).
    :param drain_timeout: maximum time for either.
    :param max_buffered_bytes: maximum number of bytes in memory, on all connections together, of incomplete request
        bodies larger than 64 KiB, otherwise 503.
    :param read_ahead_bytes: maximum number of bytes kept of the requests after an unanswered one; then the transport
        is paused. It is one read of Twisted's, so that a pipeline is never idle.
    """

    max_request_line_bytes: int = 8192
    max_head_bytes: int = 32768
    max_headers: int = 100
    head_timeout: float = 30.0
    last_head_timeout: float = 1.0
    body_timeout: float = 30.0
    min_body_rate: int = 1024
    idle_timeout: float = 75.0
    stall_timeout: float = 120.0
    drain_bytes: int = 1024 * 1024
    linger_bytes: int = 64 * 1024 * 1024
    drain_timeout: float = 5.0
    max_buffered_bytes: int = 512 * 1024 * 1024
    read_ahead_bytes: int = 64 * 1024
