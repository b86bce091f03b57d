"""A twisted.web site over ``dstreams.build_resource``, run by itself so that a suite can be pointed at it.

Prints ``listening on HOST:PORT`` as the server itself does, and stops at SIGTERM.
"""

from __future__ import annotations

import os

from twisted.internet import reactor
from twisted.web.server import Site

import dstreams
from dstreams.config import load_config


def main() -> None:
    """Serve until the process is told to stop."""
    resource = dstreams.build_resource(config=load_config(environ=os.environ))
    port = reactor.listenTCP(0, Site(resource), interface="127.0.0.1")
    print(f"listening on 127.0.0.1:{port.getHost().port}", flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
