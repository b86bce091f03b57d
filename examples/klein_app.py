"""A klein application that serves Durable Streams, and a page that follows one of them.

    python examples/klein_app.py [PORT]
    curl -X PUT http://127.0.0.1:8080/durable/v1/stream/lobby -H 'Content-Type: text/plain'
    curl -X POST http://127.0.0.1:8080/durable/v1/stream/lobby -H 'Content-Type: text/plain' -d 'hello '

http://127.0.0.1:8080/ then shows the messages as they are appended.
"""

from __future__ import annotations

import sys

from klein import Klein
from twisted.internet import endpoints, reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.web.iweb import IRequest
from twisted.web.server import Site

import dstreams

PAGE = """<!doctype html><title>Lobby</title><pre id="said"></pre><script>
const events = new EventSource("/durable/v1/stream/lobby?offset=-1&live=sse");
events.addEventListener("data", (event) => { document.getElementById("said").textContent += event.data; });
</script>"""

app = Klein()
stopping: Deferred[None] = Deferred()
streams = dstreams.build_resource(
    dstreams.MemoryStorage(),  # dstreams.FileStorage.at("data", reactor) stores them on disk
    dstreams.Config(),
    ready=lambda: not stopping.called,
    shutdown=stopping,
)


@app.route("/")
def page(request: IRequest) -> str:
    """Return the application's own page."""
    request.setHeader("content-type", "text/html; charset=utf-8")
    return PAGE


@app.route("/durable/", branch=True)
def durable(_: IRequest) -> dstreams.MountedStreams:
    """Serve the streams under /durable/."""
    return streams


async def stop(port: IListeningPort) -> None:
    """Shut down cleanly: accept no more connections, end live readers, let requests finish, close the storage."""
    await maybeDeferred(port.stopListening)
    stopping.callback(None)
    await streams.close()


def listening(port: IListeningPort) -> None:
    """Print the address of the open port, and arrange for a clean shutdown."""
    host = port.getHost()
    assert isinstance(host, IPv4Address)
    print(f"listening on {host.host}:{host.port}", flush=True)
    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(stop(port)))


if __name__ == "__main__":
    number = sys.argv[1] if len(sys.argv) > 1 else "8080"
    endpoint = endpoints.serverFromString(reactor, f"tcp:{number}:interface=127.0.0.1")
    endpoint.listen(Site(app.resource())).addCallback(listening)
    reactor.run()
