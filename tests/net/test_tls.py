"""TLS as real clients meet it: versions, certificates, protocols, the limit of a handshake, the end."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from twisted.internet.interfaces import INegotiated, ITCPTransport
from twisted.logger import LogLevel, capturedLogs, formatEvent
from zope.interface import alsoProvides

from dstreams.net.tls import TlsContext
from dstreams.runtime.startup import StartupError
from tests.net.tls_peer import Meeting, Recorder, client_context, options
from tests.support.certificates import DAY, Authority, Identity, pem

V1_2, V1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs everybody's certificates."""
    return Authority(tmp_path)


@pytest.fixture
def identity(authority: Authority) -> Identity:
    """The server's certificate."""
    return authority.issue("server")


class VersionTests:
    """Which TLS versions are spoken."""

    @pytest.mark.parametrize(
        ("lowest", "highest", "client", "spoken"),
        [
            ("1.2", "1.3", (V1_2, V1_3), "TLSv1.3"),
            ("1.2", "1.3", (V1_2, V1_2), "TLSv1.2"),
            ("1.2", "1.2", (V1_2, V1_3), "TLSv1.2"),
            ("1.3", "1.3", (V1_2, V1_3), "TLSv1.3"),
        ],
    )
    def test_spoken(
        self,
        authority: Authority,
        identity: Identity,
        lowest: str,
        highest: str,
        client: tuple[ssl.TLSVersion, ssl.TLSVersion],
        spoken: str,
    ) -> None:
        """The highest version that both speak is used, and data goes both ways."""
        context = TlsContext(options(identity, min_version=lowest, max_version=highest))
        meeting = Meeting(context, client_context(authority.path, lowest=client[0], highest=client[1]))
        meeting.shake_hands()
        assert meeting.peer.version() == spoken
        meeting.say(b"question")
        assert meeting.inside.received == b"question"
        meeting.server.write(b"answer")
        assert meeting.read() == b"answer"

    @pytest.mark.parametrize(("lowest", "highest", "client"), [("1.3", "1.3", V1_2), ("1.2", "1.2", V1_3)])
    def test_refused(
        self, authority: Authority, identity: Identity, lowest: str, highest: str, client: ssl.TLSVersion
    ) -> None:
        """A client that speaks none of the allowed versions is refused with an alert."""
        context = TlsContext(options(identity, min_version=lowest, max_version=highest))
        meeting = Meeting(context, client_context(authority.path, lowest=client, highest=client))
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
            meeting.shake_hands()
        assert meeting.transport.disconnecting

    def test_forward_secrecy(self, authority: Authority, identity: Identity) -> None:
        """With TLS 1.2, a client that offers only ciphers without forward secrecy is refused."""
        client = client_context(authority.path, highest=V1_2)
        client.set_ciphers("AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA256")
        with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
            Meeting(TlsContext(options(identity)), client).shake_hands()

    def test_no_sessions(self, authority: Authority, identity: Identity) -> None:
        """No session can be resumed: it would go on with a certificate that a reload has replaced."""
        for version in (V1_2, V1_3):
            client = client_context(authority.path, lowest=version, highest=version)
            meeting = Meeting(TlsContext(options(identity)), client)
            meeting.shake_hands()
            meeting.server.write(b"x")
            meeting.read()
            session = meeting.peer.session
            meeting.connect()
            meeting.peer.session = session
            meeting.shake_hands()
            assert not meeting.peer.session_reused

    def test_refused_by_openssl(self, identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
        """What OpenSSL finds wrong is told in the phase build_tls_context."""
        monkeypatch.setattr("dstreams.net.tls.CIPHERS", b"NONSENSE")
        with pytest.raises(
            StartupError, match=r"^\[build_tls_context\] failed to build TLS context: .*no cipher match"
        ):
            TlsContext(options(identity))


class ProtocolTests:
    """Which application protocol is agreed on (ALPN)."""

    @pytest.mark.parametrize(
        ("spoken", "offered", "agreed"),
        [
            ((b"h2", b"http/1.1"), ("http/1.1", "h2"), b"h2"),
            ((b"http/1.1", b"h2"), ("h2", "http/1.1"), b"http/1.1"),
            ((b"http/1.1",), ("h2", "http/1.1"), b"http/1.1"),
            ((b"h2", b"http/1.1"), (), None),
        ],
    )
    def test_agreed(
        self,
        authority: Authority,
        identity: Identity,
        spoken: tuple[bytes, ...],
        offered: tuple[str, ...],
        agreed: bytes | None,
    ) -> None:
        """The server's best that the client offers is taken; a client that offers nothing gets no protocol."""
        context = TlsContext(options(identity, protocols=spoken))
        meeting = Meeting(context, client_context(authority.path, protocols=offered))
        meeting.shake_hands()
        assert meeting.peer.selected_alpn_protocol() == (None if agreed is None else agreed.decode())
        assert INegotiated(meeting.server).negotiatedProtocol == agreed

    def test_refused(self, authority: Authority, identity: Identity) -> None:
        """A client that offers only others is refused with the alert for that (RFC 7301 section 3.2)."""
        context = TlsContext(options(identity, protocols=(b"http/1.1",)))
        with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
            Meeting(context, client_context(authority.path, protocols=("h2",))).shake_hands()


class ClientCertificateTests:
    """Mutual TLS: who gets in."""

    def meet(self, identity: Identity, authority: Authority, client: Identity | None, trusted: Path) -> Meeting:
        """A client comes with or without a certificate; the handshake is complete on both sides."""
        meeting = Meeting(
            TlsContext(options(identity, client_ca=trusted)), client_context(authority.path, identity=client)
        )
        meeting.shake_hands()
        meeting.say(b"hello")
        return meeting

    def refused(self, identity: Identity, authority: Authority, client: Identity | None, trusted: Path) -> str:
        """The alert that a client gets. With TLS 1.3 its own handshake is complete before."""
        try:
            meeting = self.meet(identity, authority, client, trusted)
        except ssl.SSLError as error:
            return str(error).lower()
        assert meeting.inside.received == b""
        with pytest.raises(ssl.SSLError) as caught:
            meeting.read()
        return str(caught.value).lower()

    def test_accepted(self, identity: Identity, authority: Authority) -> None:
        """A certificate of the trusted authority lets a client in, and is known to what speaks inside."""
        client = authority.issue("client", client=True)
        meeting = self.meet(identity, authority, client, authority.path)
        assert meeting.inside.received == b"hello"
        certificate = meeting.server.getPeerCertificate()
        assert certificate.to_cryptography() == client.value

    def test_none(self, identity: Identity, authority: Authority) -> None:
        """A client without a certificate is refused."""
        assert "certificate" in self.refused(identity, authority, None, authority.path)

    def test_wrong_authority(self, identity: Identity, authority: Authority, tmp_path: Path) -> None:
        """A certificate of somebody else is refused."""
        stranger = Authority(tmp_path, "stranger").issue("client", client=True)
        assert "unknown ca" in self.refused(identity, authority, stranger, authority.path)

    def test_imposter(self, identity: Identity, authority: Authority, tmp_path: Path) -> None:
        """An authority that only bears the name of the trusted one is refused."""
        (tmp_path / "x").mkdir()
        imposter = Authority(tmp_path / "x").issue("client", client=True)
        alert = self.refused(identity, authority, imposter, authority.path)
        assert "decrypt error" in alert or "unknown ca" in alert or "bad certificate" in alert

    def test_expired(self, identity: Identity, authority: Authority) -> None:
        """An expired certificate is refused, and one that isn't valid yet."""
        old = authority.issue("old", client=True, start=-2 * DAY, end=-DAY)
        assert "certificate expired" in self.refused(identity, authority, old, authority.path)
        young = authority.issue("young", client=True, start=DAY, end=2 * DAY)
        assert "certificate" in self.refused(identity, authority, young, authority.path)

    def test_wrong_purpose(self, identity: Identity, authority: Authority) -> None:
        """A server's certificate doesn't do for a client."""
        assert "certificate" in self.refused(identity, authority, authority.issue("other"), authority.path)

    def test_intermediate(self, identity: Identity, authority: Authority, tmp_path: Path) -> None:
        """An authority below the trusted one is good when the client brings its certificate."""
        between = Authority(tmp_path, "between", authority)
        client = between.issue("client", client=True, chain=pem(between.value))
        assert self.meet(identity, authority, client, authority.path).inside.received == b"hello"
        alone = between.issue("alone", client=True)
        assert "unknown ca" in self.refused(identity, authority, alone, authority.path)

    def test_intermediate_trusted(self, identity: Identity, authority: Authority, tmp_path: Path) -> None:
        """An intermediate authority may be the trusted one: then its root's other certificates are not."""
        between = Authority(tmp_path, "between", authority)
        client = between.issue("client", client=True)
        assert self.meet(identity, authority, client, between.path).inside.received == b"hello"
        sibling = authority.issue("sibling", client=True)
        assert "unknown ca" in self.refused(identity, authority, sibling, between.path)


class ReloadTests:
    """Certificates are exchanged while connections live."""

    def test_reload(self, authority: Authority, identity: Identity) -> None:
        """New connections see the new certificate; one that is open goes on."""
        context = TlsContext(options(identity))
        before = Meeting(context, client_context(authority.path))
        before.shake_hands()
        renewed = authority.issue("server")
        context.reload()
        after = Meeting(context, client_context(authority.path))
        after.shake_hands()
        numbers = [(meeting.peer.getpeercert() or {})["serialNumber"] for meeting in (before, after)]
        assert [int(str(number), 16) for number in numbers] == [
            identity.value.serial_number,
            renewed.value.serial_number,
        ]
        before.say(b"still here")
        assert before.inside.received == b"still here"

    def test_bad_files(self, authority: Authority, identity: Identity) -> None:
        """With files that don't fit, which a deploy hook leaves for a moment, the old ones stay in use."""
        context = TlsContext(options(identity))
        key = identity.key.read_bytes()
        authority.issue("server")
        identity.key.write_bytes(key)
        with pytest.raises(StartupError, match="doesn't belong to the first certificate"):
            context.reload()
        meeting = Meeting(context, client_context(authority.path))
        meeting.shake_hands()


class HandshakeTests:
    """A handshake may not take for ever, and tells why it failed."""

    def test_silent(self, authority: Authority, identity: Identity) -> None:
        """A client that connects and says nothing is cut when its time is over."""
        meeting = Meeting(TlsContext(options(identity, handshake_timeout=7)), client_context(authority.path))
        meeting.clock.advance(6.9)
        assert not meeting.transport.disconnected
        with capturedLogs() as events:
            meeting.clock.advance(0.2)
        assert meeting.transport.disconnected
        lines = [formatEvent(event) for event in events]
        assert "TLS handshake failed: 192.0.2.7: not complete after 7 s" in lines

    def test_half(self, authority: Authority, identity: Identity) -> None:
        """Half a ClientHello is no better, however its bytes trickle."""
        meeting = Meeting(TlsContext(options(identity)), client_context(authority.path))
        with pytest.raises(ssl.SSLWantReadError):
            meeting.peer.do_handshake()
        hello = meeting._outgoing.read()
        for position in range(9):
            meeting.server.dataReceived(hello[position : position + 1])
            meeting.clock.advance(1)
        assert not meeting.transport.disconnected
        meeting.clock.advance(2)
        assert meeting.transport.disconnected

    def test_complete(self, authority: Authority, identity: Identity) -> None:
        """A connection whose handshake is complete has no such limit."""
        meeting = Meeting(TlsContext(options(identity)), client_context(authority.path))
        meeting.shake_hands()
        meeting.clock.advance(1000)
        assert not meeting.transport.disconnecting
        meeting.lose()
        assert meeting.clock.getDelayedCalls() == []

    def test_gone(self, authority: Authority, identity: Identity) -> None:
        """A client that leaves in between leaves no timer behind, and no line in the log."""
        meeting = Meeting(TlsContext(options(identity)), client_context(authority.path))
        with capturedLogs() as events:
            meeting.lose()
        assert meeting.clock.getDelayedCalls() == []
        assert [event for event in events if event["log_namespace"] == "dstreams.net.tls"] == []

    def test_plain_http(self, authority: Authority, identity: Identity) -> None:
        """A client that speaks plain HTTP is told off, and the operator told what it was."""
        meeting = Meeting(TlsContext(options(identity)), client_context(authority.path))
        with capturedLogs() as events:
            meeting.server.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert meeting.transport.disconnecting
            meeting.lose()
        lines = [formatEvent(event) for event in events if event["log_level"] is LogLevel.info]
        assert lines == ["TLS handshake failed: 192.0.2.7: http request"]

    def test_many_failures(self, authority: Authority, identity: Identity) -> None:
        """Failures soon after one that was logged are only counted."""
        meeting = Meeting(TlsContext(options(identity)), client_context(authority.path))
        with capturedLogs() as events:
            for pause in (0, 0, 0, 6):
                meeting.clock.advance(pause)
                meeting.connect()
                meeting.server.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
                meeting.lose()
        lines = [formatEvent(event) for event in events if event["log_namespace"] == "dstreams.net.tls"]
        assert lines == [
            "TLS handshake failed: 192.0.2.7: http request",
            "TLS handshake failed: 192.0.2.7: http request",
            "2 other TLS handshakes have failed since the last message",
        ]


class RefusalTests:
    """Clients that are refused in the handshake can read why."""

    @pytest.fixture
    def refused(self, authority: Authority, identity: Identity) -> Meeting:
        """A client of TLS 1.3 that has no certificate, and is told so, over a transport that can be half-closed."""
        context = TlsContext(options(identity, client_ca=authority.path))
        meeting = Meeting(context, client_context(authority.path, lowest=V1_3))
        self.closed: list[str] = []
        meeting.transport.loseWriteConnection = lambda: self.closed.append("half")  # type: ignore[attr-defined]
        meeting.shake_hands()
        return meeting

    def test_time_to_read(self, refused: Meeting) -> None:
        """Only the server's side is closed at first; what the client sends meanwhile is dropped."""
        assert self.closed == ["half"]
        assert not refused.transport.disconnecting
        refused.peer.write(b"a request")
        refused.turn()
        assert refused.inside.received == b""
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
            refused.read()
        refused.clock.advance(1.1)
        assert refused.transport.disconnecting
        assert self.closed == ["half"]

    def test_client_closes(self, refused: Meeting) -> None:
        """When the client closes, nothing is waited for any longer, and the reason is logged."""
        with capturedLogs() as events:
            refused.lose()
        assert refused.clock.getDelayedCalls() == []
        lines = [formatEvent(event) for event in events]
        assert "TLS handshake failed: 192.0.2.7: peer did not return a certificate" in lines

    def test_leaves_early(self, authority: Authority, identity: Identity) -> None:
        """A client that leaves in the middle of a handshake needs nothing of that."""
        meeting = Meeting(TlsContext(options(identity)), client_context(authority.path))
        closed: list[str] = []
        meeting.transport.loseWriteConnection = lambda: closed.append("half")  # type: ignore[attr-defined]
        meeting.lose()
        assert closed == []
        assert meeting.clock.getDelayedCalls() == []


class TransportTests:
    """What speaks inside asks of its transport."""

    def test_no_delay(self, authority: Authority, identity: Identity) -> None:
        """Whether small writes wait is the business of TCP; over anything else the question is moot."""
        meeting = Meeting(TlsContext(options(identity)), client_context(authority.path))
        meeting.server.setTcpNoDelay(True)
        asked: list[bool] = []
        meeting.transport.setTcpNoDelay = asked.append  # type: ignore[attr-defined]
        alsoProvides(meeting.transport, ITCPTransport)
        meeting.server.setTcpNoDelay(True)
        assert asked == [True]


class EndTests:
    """How a connection ends."""

    def meeting(self, authority: Authority, identity: Identity) -> Meeting:
        """A connection whose handshake is complete."""
        meeting = Meeting(TlsContext(options(identity)), client_context(authority.path))
        meeting.shake_hands()
        return meeting

    def test_goodbye(self, authority: Authority, identity: Identity) -> None:
        """The server says goodbye and closes at once: it doesn't wait for a client that may not be looking."""
        meeting = self.meeting(authority, identity)
        meeting.server.write(b"last words")
        meeting.server.loseConnection()
        assert meeting.transport.disconnecting
        assert meeting.read() == b"last words"
        assert meeting.read() == b""

    def test_producer(self, authority: Authority, identity: Identity) -> None:
        """With a producer, the connection closes when that has written everything."""
        meeting = self.meeting(authority, identity)

        class Producer:
            def pauseProducing(self) -> None:
                """Not needed."""

            resumeProducing = stopProducing = pauseProducing

        meeting.server.registerProducer(Producer(), True)
        meeting.server.loseConnection()
        assert not meeting.transport.disconnecting
        meeting.server.unregisterProducer()
        assert meeting.transport.disconnecting

    def test_client_goodbye(self, authority: Authority, identity: Identity) -> None:
        """A client's goodbye closes the connection."""
        meeting = self.meeting(authority, identity)
        with pytest.raises(ssl.SSLError):
            meeting.peer.unwrap()
        meeting.turn()
        assert meeting.transport.disconnecting

    def test_abort(self, authority: Authority, identity: Identity) -> None:
        """An aborted connection is gone at once, in the middle of a handshake, too."""
        meeting = self.meeting(authority, identity)
        meeting.server.abortConnection()
        assert meeting.transport.disconnected
        young = Meeting(TlsContext(options(identity)), client_context(authority.path))
        young.server.abortConnection()
        assert young.transport.disconnected
        inside: Recorder = young.inside
        young.lose()
        assert len(inside.lost) == 1
