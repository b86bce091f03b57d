"""The host names under which the admin listener answers.

A web page that an operator has open in a browser cannot read what the loopback interface serves. But the page's owner
can make the page's host name resolve to 127.0.0.1 a moment later, and then the browser treats both as one site ("DNS
rebinding"). Such a request carries that name in its ``Host`` header. So a listener that only this machine can reach
answers only under names that cannot belong to anybody else.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field
from twisted.internet.interfaces import IAddress

from dstreams.config.addresses import host_of, parse_host
from dstreams.config.endpoints import is_loopback
from dstreams.http.messages import Request
from dstreams.protocol.problems import Misdirected


def _comparable(names: Iterable[str]) -> frozenset[str]:
    return frozenset(map(parse_host, names))


@define(eq=False)
class AllowedHosts:
    """Checks the ``Host`` header of requests.

    :param names: the value of ``admin.allowed_hosts``. If it has names, every request is checked; otherwise only
        requests to the loopback interface are.
    """

    _names: frozenset[str] = field(converter=_comparable, default=())
    _checks: bool = field(init=False)

    @_checks.default
    def _checks_all(self) -> bool:
        return bool(self._names)

    def bound(self, address: IAddress) -> None:
        """Note the address that the listener is bound to."""
        host: str | None = getattr(address, "host", None)
        if host is not None and is_loopback(host):
            self._checks = True

    def check(self, request: Request) -> Misdirected | None:
        """Return why a request is rejected, or ``None``. One without ``Host`` (HTTP/1.0) comes from no browser."""
        header = request.headers.get(b"host")
        if not self._checks or header is None:
            return None
        host = host_of(header.decode("latin-1"))
        if host is not None and (is_loopback(host) or host in self._names):
            return None
        return Misdirected("The admin listener does not answer to this host name; see the key admin.allowed_hosts")
