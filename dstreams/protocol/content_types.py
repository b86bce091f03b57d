"""Content types: what a stream's bytes are (PROTOCOL section 9)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from attrs import field, frozen

from dstreams.protocol.charsets import decoding_table
from dstreams.protocol.problems import BadRequest, printable
from dstreams.protocol.sse import SseEncoding

MAX_BYTES: Final = 1024
"""The longest value taken: it is stored per stream and cached. RFC 6838 names need 255 at most."""

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_MEDIA_TYPE: Final = re.compile(
    rb"(%(token)b/%(token)b)(?:[ \t]*;(?:[ \t]*%(token)b=(?:%(token)b|%(quoted)b))?)*"
    % {b"token": _TOKEN, b"quoted": _QUOTED}
)
"""RFC 9110 section 8.3.1, without the obsolete bytes above 127.

Blanks belong to what follows them: if the end of an empty parameter could take them too, a hostile value
would be tried in exponentially many ways.
"""


_PARAMETER: Final = re.compile(r";[ \t]*(?:([^\s;=]+)=(\"(?:[^\"\\]|\\.)*\"|[^\s;]*))?[ \t]*")
"""A parameter of a well-formed value, and the blanks after it."""
_BACKSLASH: Final = re.compile(r"\\(.)")

_ACTIVE: Final = re.compile(r"text/html|(text|application)/xml|.+\+xml|multipart/x-mixed-replace")
"""Media types that a browser shows as a page, in which scripts run: HTML, XML with its kinds (XHTML, SVG, MathML, with
style sheets and XSLT), and a sequence of pages."""

_SANDBOX: Final = b"Content-Security-Policy: sandbox; default-src 'none'\r\n"
"""Keeps a page that somebody has stored from acting in the name of this server's origin, and from loading anything."""


@frozen
class ContentType:
    """A content type, as sent and as compared.

    :param value: what the client sent, without surrounding blanks; ASCII. This is what readers get.
    :param media_type: type and subtype in lower case, without parameters. This is what is compared.
    """

    value: str
    media_type: str
    is_json: bool = field(init=False, eq=False)
    """Whether JSON mode applies (PROTOCOL section 9.1)."""
    sse_encoding: SseEncoding = field(init=False, eq=False)
    """How the bytes travel in server-sent events (PROTOCOL section 5.8)."""
    decoding_table: str | None = field(init=False, eq=False, repr=False)
    """The 256 characters that a text's bytes stand for, if its ``charset`` has one byte a character; otherwise it is
    taken for UTF-8."""
    line: bytes = field(init=False, eq=False, repr=False)
    """The header line of an answer that carries them; where a browser could run scripts, a second one: a sandbox."""

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
"""The type of a stream created without one (PROTOCOL section 5.1)."""


@lru_cache(maxsize=512)
def parse_content_type(raw: bytes) -> ContentType:
    """Read a ``Content-Type`` header.

    :param raw: the header's value.
    :return: the content type; the same object for the same value while it is cached.
    :raises BadRequest: the value is blank, too long, or not ``type/subtype`` with well-formed parameters.
    """
    value = raw.strip(b" \t")
    match = _MEDIA_TYPE.fullmatch(value) if len(value) <= MAX_BYTES else None
    if match is None:
        raise BadRequest(f"Invalid header value for Content-Type: {printable(raw)}.")
    return ContentType(value.decode("ascii"), match.group(1).decode("ascii").lower())


@lru_cache(maxsize=512)
def media_type(raw: bytes) -> str:
    """Read only what is compared from a ``Content-Type`` header.

    :param raw: the header's value.
    :return: type and subtype in lower case, without parameters.
    :raises BadRequest: as :func:`parse_content_type`.
    """
    return parse_content_type(raw).media_type
