"""Content types of streams (PROTOCOL section 9)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from attrs import field, frozen

from dstreams.protocol.charsets import decoding_table
from dstreams.protocol.problems import BadRequest, printable
from dstreams.protocol.sse import SseEncoding

MAX_BYTES: Final = 1024
"""Maximum length of a header value in bytes. The value is stored for each stream, and cached. RFC 6838 names need at
most 255."""

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_MEDIA_TYPE: Final = re.compile(
    rb"(%(token)b/%(token)b)(?:[ \t]*;(?:[ \t]*%(token)b=(?:%(token)b|%(quoted)b))?)*"
    % {b"token": _TOKEN, b"quoted": _QUOTED}
)
"""RFC 9110 section 8.3.1, without the obsolete bytes above 127.

Blanks are matched only together with what follows them. If the end of an empty parameter could match them too, a
hostile value would cause exponential backtracking.
"""


_PARAMETER: Final = re.compile(r";[ \t]*(?:([^\s;=]+)=(\"(?:[^\"\\]|\\.)*\"|[^\s;]*))?[ \t]*")
"""Matches a parameter of a well-formed value, and the blanks after it."""
_BACKSLASH: Final = re.compile(r"\\(.)")

_ACTIVE: Final = re.compile(r"text/html|(text|application)/xml|.+\+xml|multipart/x-mixed-replace")
"""Matches media types that a browser shows as a page in which scripts run: HTML, XML and its kinds (XHTML, SVG, MathML,
with style sheets and XSLT), and a sequence of pages."""

_SANDBOX: Final = b"Content-Security-Policy: sandbox; default-src 'none'\r\n"
"""Prevents a page that a client has stored from acting with this server's origin, and from loading anything."""


@frozen
class ContentType:
    """A content type, as sent and as compared.

    :param value: the value that the client sent, without surrounding blanks; ASCII. Readers get this value.
    :param media_type: type and subtype in lower case, without parameters. Content types are compared by it.
    """

    value: str
    media_type: str
    is_json: bool = field(init=False, eq=False)
    """Whether JSON mode applies (PROTOCOL section 9.1)."""
    sse_encoding: SseEncoding = field(init=False, eq=False)
    """How the bytes are encoded in server-sent events (PROTOCOL section 5.8)."""
    decoding_table: str | None = field(init=False, eq=False, repr=False)
    """The 256 characters for the bytes of a text, if its ``charset`` is a single-byte one; ``None`` for UTF-8 and for
    everything that is treated as UTF-8 or is not text."""
    line: bytes = field(init=False, eq=False, repr=False)
    """The header line for responses with such content, followed by a sandbox line if a browser could run scripts."""

    @is_json.default
    def _decide_json(self) -> bool:
        return self.media_type == "application/json"

    @sse_encoding.default
    def _choose_encoding(self) -> SseEncoding:
        if self.media_type == "application/json":
            return SseEncoding.JSON
        return SseEncoding.TEXT if self.media_type.startswith("text/") else SseEncoding.BASE64

    @decoding_table.default
    def _find_table(self) -> str | None:
        if not self.media_type.startswith("text/") or ";" not in self.value:
            return None
        for name, value in _PARAMETER.findall(self.value, self.value.index(";")):
            if name.lower() == "charset":
                return decoding_table(_BACKSLASH.sub(r"\1", value[1:-1]) if value.startswith('"') else value)
        return None

    @line.default
    def _write_line(self) -> bytes:
        line = b"Content-Type: %b\r\n" % self.value.encode("latin-1")
        return line + _SANDBOX if _ACTIVE.fullmatch(self.media_type) else line


DEFAULT: Final = ContentType("application/octet-stream", "application/octet-stream")
"""The content type of a stream that is created without one (PROTOCOL section 5.1)."""


@lru_cache(maxsize=512)
def parse_content_type(raw: bytes) -> ContentType:
    """Parse a ``Content-Type`` header.

    :param raw: the header's value.
    :return: the content type; the same object for the same value while it is cached.
    :raises BadRequest: if the value is blank, too long, or not ``type/subtype`` with well-formed parameters.
    """
    value = raw.strip(b" \t")
    match = _MEDIA_TYPE.fullmatch(value) if len(value) <= MAX_BYTES else None
    if match is None:
        raise BadRequest(f"Invalid header value for Content-Type: {printable(raw)}.")
    return ContentType(value.decode("ascii"), match.group(1).decode("ascii").lower())


@lru_cache(maxsize=512)
def media_type(raw: bytes) -> str:
    """Return the media type in a ``Content-Type`` header, by which content types are compared.

    :param raw: the header's value.
    :return: type and subtype in lower case, without parameters.
    :raises BadRequest: as :func:`parse_content_type`.
    """
    return parse_content_type(raw).media_type
