"""What ``twistd`` finds: the service ``durable-streams`` and the reactor ``uvloop``.

Only names are given here, so that listing the plugins of a machine doesn't import the server.
"""

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker

server = ServiceMaker(
    "Durable Streams",
    "dstreams.tap",
    "A Durable Streams server: append-only streams over HTTP, with live readers.",
    "durable-streams",
)

uvloop = Reactor(
    "uvloop",
    "dstreams.net.reactor",
    "asyncio's event loop as uvloop implements it, with uvloop's own stream connections.",
)
