"""The parsed query of a GET, cached with the request's head."""

from __future__ import annotations

from dstreams.http.messages import Request
from dstreams.protocol.queries import ReadQuery, parse_read_query


def read_query(request: Request) -> ReadQuery:
    """Return the parsed query of a read (PROTOCOL 5.6 to 5.8).

    :raise ProtocolError: if it is malformed.
    """
    query = request.facts.query
    if query is None:
        query = request.facts.query = parse_read_query(request.query)
    return query
