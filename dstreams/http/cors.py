"""CORS headers: which scripts of other origins may use this server (the Fetch standard)."""

from __future__ import annotations

from attrs import define, field

from dstreams.http.messages import Request, Response
from dstreams.protocol.headers import ALLOWED_REQUEST_HEADERS, EXPOSED

ALLOWED_METHODS = b"GET, HEAD, PUT, POST, DELETE, OPTIONS"

PREFLIGHT_MAX_AGE = 600
"""Seconds for which a browser may cache the response to a preflight: ten minutes, so that a changed list of origins
soon takes effect."""

_EXPOSE = b"Access-Control-Expose-Headers: %b\r\n" % b", ".join(EXPOSED)


@define(eq=False)
class Cors:
    """The policy of one server.

    :param origins: ``("*",)`` for everybody, or the origins that are let in.
    :param credentials: whether scripts of the listed origins may send cookies and the like; never with ``*``.
    :param allow_headers: request headers that scripts may send besides the protocol's.
    """

    _origins: tuple[str, ...]
    _credentials: bool = False
    _allow_headers: tuple[str, ...] = ()
    _everybody: bytes | None = field(init=False)
    _admitted: dict[bytes, bytes] = field(init=False)
    _preflight: bytes = field(init=False)

    def __attrs_post_init__(self) -> None:
        anyone = "*" in self._origins
        self._everybody = b"Access-Control-Allow-Origin: *\r\n" + _EXPOSE if anyone else None
        common = b"Vary: Origin\r\n" + (b"Access-Control-Allow-Credentials: true\r\n" if self._credentials else b"")
        self._admitted = {
            origin.encode(): b"Access-Control-Allow-Origin: %b\r\n%b%b" % (origin.encode(), common, _EXPOSE)
            for origin in self._origins
        }
        self._preflight = _preflight_lines(self._allow_headers)

    def lines(self, request: Request | None) -> bytes:
        """Return the CORS header lines of a response.

        Answers to reads always carry them when everybody is let in, because a shared cache may hand them to a
        browser later; answers to writes only when a browser asks, since they are never kept.
        """
        origin = request.headers.get(b"origin") if request is not None else None
        if self._everybody is not None:
            if origin is None and request is not None and request.method in (b"POST", b"PUT", b"DELETE"):
                return b""
            return self._everybody
        return b"Vary: Origin\r\n" if origin is None else self._admitted.get(origin, b"Vary: Origin\r\n")

    def preflight(self) -> Response:
        """Return the response to OPTIONS, with what is allowed; :meth:`lines` adds to whom."""
        return Response(204, self._preflight)


def _preflight_lines(allow_headers: tuple[str, ...]) -> bytes:
    known = {name.lower() for name in ALLOWED_REQUEST_HEADERS}
    added = [name.encode() for name in allow_headers if name.encode().lower() not in known]
    return (
        b"Access-Control-Allow-Methods: %b\r\nAccess-Control-Allow-Headers: %b\r\nAccess-Control-Max-Age: %d\r\n"
        b"Allow: %b\r\n"
    ) % (ALLOWED_METHODS, b", ".join([*ALLOWED_REQUEST_HEADERS, *added]), PREFLIGHT_MAX_AGE, ALLOWED_METHODS)
