"""What ``twistd`` finds: endpoint strings that begin with ``dstls``.

Twisted imports this whenever it meets an endpoint string that isn't its own, so the rest is imported at its first use.
"""

from typing import Any

from twisted.internet.interfaces import IStreamServerEndpoint, IStreamServerEndpointStringParser
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamServerEndpointStringParser)
class TlsEndpointParser:
    """Makes endpoints of strings such as ``dstls:4437:cert=cert.pem:key=key.pem``."""

    prefix = "dstls"

    def parseStreamServer(self, reactor: object, *args: Any, **kwargs: Any) -> IStreamServerEndpoint:  # noqa: N802
        """See :func:`dstreams.net.endpoint.parse_tls_endpoint`."""
        from dstreams.net.endpoint import parse_tls_endpoint

        return parse_tls_endpoint(reactor, *args, **kwargs)


tls = TlsEndpointParser()
