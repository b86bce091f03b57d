"""What ``twistd`` finds: the service ``durable-streams``.

Only names are given here, so that listing the plugins of a machine doesn't import the server.
"""

from twisted.application.service import ServiceMaker

server = ServiceMaker(
    "Durable Streams",
    "dstreams.tap",
    "A Durable Streams server: append-only streams over HTTP, with live readers.",
    "durable-streams",
)
