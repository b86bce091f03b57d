"""TLS connections, until it is known what is spoken on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock

from dstreams.http.http1.channel import HttpChannel
from dstreams.http.http2.connection import Http2Connection
from dstreams.http.site import HttpSite
from dstreams.net.tls import TlsContext
from dstreams.runtime.timers import TimerWheel
from tests.http.fakes import FakeApplication, read_answers
from tests.net.tls_peer import Meeting, client_context, options
from tests.support.certificates import Authority


@define(eq=False)
class Scene:
    """A site over TLS, and clients of it."""

    directory: Path
    clock: Clock = field(factory=Clock)
    application: FakeApplication = field(factory=FakeApplication)
    site: HttpSite = field(init=False)
    authority: Authority = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.site = HttpSite(self.application, TimerWheel(self.clock, stopwatch=self.clock.seconds))
        self.authority = Authority(self.directory)

    def meet(self, *offered: str, spoken: tuple[bytes, ...] = (b"h2", b"http/1.1")) -> Meeting:
        """A client has connected to the site; the handshake is still to come."""
        identity = self.authority.issue("server")
        context = TlsContext(options(identity, protocols=spoken))
        client = client_context(self.authority.path, protocols=offered)
        factory: IProtocolFactory = self.site.over_tls(spoken)
        return Meeting(context, client, factory, self.clock)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A site over TLS."""
    return Scene(tmp_path)


class NegotiationTests:
    """The handshake decides what is spoken."""

    @pytest.mark.parametrize(
        ("offered", "kind"),
        [(("h2", "http/1.1"), Http2Connection), (("http/1.1",), HttpChannel), ((), HttpChannel)],
    )
    def test_chosen(self, scene: Scene, offered: tuple[str, ...], kind: type[object]) -> None:
        """What was agreed on takes the connection over, and is the one that is counted."""
        meeting = scene.meet(*offered)
        assert scene.site.statistics().connections == 1
        meeting.shake_hands()
        inner: Any = meeting.server.wrappedProtocol
        assert type(inner) is kind
        assert scene.site.connections.live == {inner}
        meeting.lose()
        assert scene.site.connections.live == set()

    def test_request(self, scene: Scene) -> None:
        """A request in the segment that completes the handshake is answered; its scheme is https."""
        meeting = scene.meet()
        while True:
            try:
                meeting.peer.do_handshake()
                break
            except OSError:
                meeting.turn()
        meeting.say(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        (answer,) = read_answers(meeting.read())
        assert answer.status == 200
        assert scene.application.requests[0].scheme == b"https"

    def test_only_http2(self, scene: Scene) -> None:
        """Where only HTTP/2 is spoken, a client that offers nothing is closed: it would speak HTTP/1.1."""
        meeting = scene.meet(spoken=(b"h2",))
        meeting.shake_hands()
        assert meeting.transport.disconnecting
        meeting.lose()
        assert scene.site.connections.live == set()

    def test_other_protocols(self, scene: Scene) -> None:
        """A name that isn't HTTP's may be listed, and is closed when it is agreed on."""
        meeting = scene.meet("mqtt", spoken=(b"mqtt", b"http/1.1"))
        meeting.shake_hands()
        assert meeting.transport.disconnecting


class EndTests:
    """Handshakes under way when the server ends."""

    def test_finish(self, scene: Scene) -> None:
        """A handshake that isn't complete doesn't hold up the end."""
        meeting = scene.meet("h2")
        drained = scene.site.drain()
        assert meeting.transport.disconnected
        assert not drained.called
        meeting.lose()
        assert drained.called

    @pytest.mark.parametrize("offered", [("h2",), ("http/1.1",)])
    def test_drain(self, scene: Scene, offered: tuple[str, ...]) -> None:
        """Idle connections of either version are closed within a second or so, without waiting for the client."""
        meeting = scene.meet(*offered)
        meeting.shake_hands()
        drained = scene.site.drain()
        for _ in range(12):
            scene.clock.advance(0.1)
        assert meeting.transport.disconnecting
        meeting.lose()
        assert drained.called

    def test_refused(self, scene: Scene) -> None:
        """A handshake that is completed after the end began gets no answer."""
        meeting = scene.meet("h2")
        scene.site.http1.drain()
        scene.site.http2.refuse_connections()
        again = scene.meet("h2")
        again.shake_hands()
        assert again.transport.disconnecting
        assert meeting.transport.disconnected

    @pytest.mark.parametrize("offered", [("h2",), ("http/1.1",)])
    def test_retire(self, scene: Scene, offered: tuple[str, ...]) -> None:
        """While the server retires, connections are still made, and told that they won't last."""
        scene.site.retire()
        meeting = scene.meet(*offered)
        meeting.shake_hands()
        assert not meeting.transport.disconnecting
        if offered == ("http/1.1",):
            meeting.say(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"Connection: close" in meeting.read()

    def test_abort(self, scene: Scene) -> None:
        """All are cut, whatever they are doing."""
        young, old = scene.meet("h2"), scene.meet("h2")
        old.shake_hands()
        scene.site.abort()
        assert young.transport.disconnected
        assert old.transport.disconnected
