"""How much of a client's bytes and patience an HTTP/1.1 connection allows."""

from __future__ import annotations

from attrs import frozen

WRITE_PIECE_BYTES = 64 * 1024
"""The most that is handed to a transport at a time: what Twisted's transports buffer before they ask for a
pause, so that one slow client never holds more than about two of them."""

MAX_BLANK_LINES = 8
"""Empty lines ignored before a request line (RFC 9112 section 2.2 asks for one, after old clients)."""

MAX_CHUNK_LINE_BYTES = 1024
"""A chunk's size and its extensions. Nobody sends extensions; eight digits and a signature fit."""

MAX_CHUNK_EXTENSIONS_BYTES = 16 * 1024
"""All chunk extensions of one body: they are read and dropped, so they may not be most of the traffic."""

MAX_TRAILER_BYTES = 8 * 1024
"""All trailer fields of one body: they are checked and dropped."""

MAX_KNOWN_BYTES = 16 * 1024 * 1024
"""How much memory the heads may take that are remembered, so that the next one like it need not be read; a producer's
series have as much again. Room for 15,000 streams that are appended to in turn: a head that isn't known takes 4 us
more, as much as all the rest of an append."""

MAX_KNOWN_FIELDS_BYTES = 4 * 1024 * 1024
"""The same for the fields of heads without their request lines: each client has only a few of them."""

MAX_KNOWN_HEAD_BYTES = 2048
"""The longest head that is remembered."""


MAX_LINES_AT_ONCE = 256
"""How many lines of a chunked body (sizes, ends of chunks, trailers) are read before others may have their turn."""

LARGE_READ_BYTES = 64 * 1024
"""A received segment that is longer may be followed by others in the same turn of the reactor: uvloop reads up to
250 KiB at a time, and again while there is more. Twisted's reactors read up to 64 KiB, once a turn."""

LARGE_TLS_READ_BYTES = 8 * 1024
"""The same for what TLS hands over, which is at most 16 KiB."""

STEP_SECONDS = 0.0005
"""How long one connection goes on with postponed work before the next one does."""


@frozen
class HttpLimits:
    """What a client may send, and how slowly. All times are in seconds.

    :param max_request_line_bytes: method, target and version; more is 414. What nginx and Apache allow.
    :param max_head_bytes: the request line and all headers; more is 431. Room for large cookies and tokens.
    :param max_headers: header lines; more is 431. Browsers send about 20, proxies add a dozen.
    :param head_timeout: from the first byte of a head to its end; more is 408. Against slow-header attacks.
    :param last_head_timeout: the same, from when the server has been told to stop; so long it also waits for a
        request that is on its way then.
    :param body_timeout: without a byte of an announced body; more is 408. A mobile client's worst hand-over.
    :param min_body_rate: bytes per second that a body must have brought on average after the first
        ``body_timeout``; less is 408. Against bodies that trickle for hours.
    :param idle_timeout: between two requests; then the connection is closed without a word. More than the
        60 s after which common proxies give up a connection, so that they close first.
    :param stall_timeout: for a client that takes nothing of what it asked for; then the connection is cut.
    :param drain_bytes: the announced length up to which a body that nobody wants is read, so that the
        connection can go on. Reading it costs less than a new connection.
    :param linger_bytes: what is read and dropped after an answer that ends the connection: closing earlier
        would reset the connection and destroy the answer (RFC 9112 section 9.6). It costs
        little.
    :param drain_timeout: how long either may take.
    :param max_buffered_bytes: what may have come, on all connections together, of request bodies that are larger than
        64 KiB and not complete; more is 503.
    :param read_ahead_bytes: what is kept of the requests that follow an unanswered one; then the transport is
        asked to wait. One read of Twisted's, so that a pipeline is never idle.
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
