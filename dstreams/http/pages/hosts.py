"""Under which names the admin listener answers.

A page of somebody else's that an operator has open in a browser can't read what the loopback interface serves. But its
owner can let the page's own name lead to 127.0.0.1 a moment later, and then the browser takes both for one site ("DNS
rebinding"). Such a request carries that name in its ``Host`` header; so a listener that only this machine can
reach answers only under names that can't be anybody else's.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field
from twisted.internet.interfaces import IAddress

from dstreams.config.endpoints import is_loopback
from dstreams.config.hosts import host_of, parse_host
from dstreams.http.messages import Request
from dstreams.protocol.problems import Misdirected


def _comparable(names: Iterable[str]) -> frozenset[str]:
    return frozenset(map(parse_host, names))


@define(eq=False)
class AllowedHosts:
    """Judges requests by their ``Host`` header.

    :param names: ``admin.allowed_hosts``. When there are some, every request is judged; else only those that come to
        the loopback interface.
    """

    _names: frozenset[str] = field(converter=_comparable, default=())
    _judges: bool = field(init=False)

    @_judges.default
    def _judges_all(self) -> bool:
        return bool(self._names)

    def bound(self, address: IAddress) -> None:
        """The listener is bound to an address."""
        host: str | None = getattr(address, "host", None)
        if host is not None and is_loopback(host):
            self._judges = True

    def refusal(self, request: Request) -> Misdirected | None:
        """Why a request isn't answered, ``None`` when it is. One without a ``Host`` (HTTP/1.0) is no browser's."""
        header = request.headers.get(b"host")
        if not self._judges or header is None:
            return None
        host = host_of(header.decode("latin-1"))
        if host is not None and (is_loopback(host) or host in self._names):
            return None
        return Misdirected("The admin listener doesn't answer under this name: see the key admin.allowed_hosts")
