"""``GET {admin.base_path}/streams``: lists the streams, page by page."""

from __future__ import annotations

import urllib.parse
from typing import Final

from twisted.internet.defer import Deferred

from dstreams.http.messages import Request, Response
from dstreams.http.pages.page import Page, json_response
from dstreams.model.state import StreamState
from dstreams.protocol.expiry import format_expires_at
from dstreams.protocol.offsets import format_offset
from dstreams.protocol.problems import BadRequest, printable
from dstreams.runtime.pending import then
from dstreams.streams import listing
from dstreams.streams.streams import Streams

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
"""Maximum number of streams in one page; building such a page takes some milliseconds."""

_KNOWN: Final = frozenset((b"prefix", b"after", b"limit"))


def listing_pages(base_path: str, streams: Streams) -> dict[bytes, Page]:
    """Return the page that lists ``streams``.

    :param base_path: the value of ``admin.base_path``.
    """

    def show(request: Request) -> Response | Deferred[Response]:
        parameters = _parameters(request)
        limit = _limit(parameters.get(b"limit"))
        after = _text(b"after", parameters[b"after"]) if b"after" in parameters else None
        found = streams.page(_text(b"prefix", parameters.get(b"prefix", b"")), after, limit)
        return then(found, lambda page: json_response(_document(page)))

    return {f"{base_path.rstrip('/')}/streams".encode(): Page(show)}


def _document(page: listing.Page) -> dict[str, object]:
    return {"streams": [describe(state) for state in page.streams], "next": page.after}


def describe(state: StreamState) -> dict[str, object]:
    """Return a stream's entry in the listing; ``docs/reference/admin.md`` explains each member."""
    config, fork = state.config, state.fork
    return {
        "name": state.name,
        "content_type": config.content_type.value,
        "closed": state.closed,
        "next_offset": format_offset(state.tail).decode("ascii"),
        "bytes": state.size,
        "messages": state.messages,
        "created_at": format_expires_at(state.created_at).decode("ascii"),
        "updated_at": format_expires_at(state.updated_at).decode("ascii"),
        "ttl_seconds": config.ttl,
        "expires_at": None if config.expires_at is None else format_expires_at(config.expires_at).decode("ascii"),
        "forked_from": None if fork is None else fork.source_name,
        "fork_offset": None if fork is None else format_offset(fork.position).decode("ascii"),
        "forks": state.forks,
    }


def _parameters(request: Request) -> dict[bytes, bytes]:
    parameters: dict[bytes, bytes] = {}
    # Latin-1 maps every byte to one character, so that no value is changed before it is checked.
    query = urllib.parse.parse_qsl(request.query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    for name, value in ((name.encode("latin-1"), value.encode("latin-1")) for name, value in query):
        if name not in _KNOWN:
            raise BadRequest(f"Unknown parameter {printable(name)}; a listing has prefix, after and limit.")
        if name in parameters:
            raise BadRequest(f"The parameter {printable(name)} is repeated.")
        parameters[name] = value
    return parameters


def _limit(raw: bytes | None) -> int:
    if raw is None:
        return DEFAULT_LIMIT
    if not (raw.isdigit() and len(raw) <= 4 and 1 <= int(raw) <= MAX_LIMIT):
        raise BadRequest(f"Invalid limit {printable(raw)}: it is a number from 1 to {MAX_LIMIT}.")
    return int(raw)


def _text(name: bytes, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"The parameter {printable(name)} is not UTF-8: {printable(raw)}.") from None
