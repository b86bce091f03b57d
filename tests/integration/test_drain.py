"""A busy server is told to stop: no client is cut off, and what was acknowledged is there after the restart."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from attrs import Factory, define, field

from tests.support.certificates import Authority
from tests.support.servers import ChildServer, twistd_server

resource = pytest.importorskip("resource", reason="descriptor limits are POSIX's")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long_turns(
        reason="more than a thousand clients act at once, and libuv hands out all ready sockets in one turn"
    ),
]

SSE_READERS = 500
LONG_POLLERS = 500
WRITERS = 100
STREAMS = 10
DESCRIPTORS = 2048


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    """Enough descriptors for all clients here, and as many for the server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(f"{DESCRIPTORS} descriptors are needed, and the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@define
class Answer:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_last(self) -> bool:
        """Whether the server closes the connection after it."""
        return self.headers.get("connection") == "close"


@define
class Client:
    """A connection that is kept alive, and asks until it is told not to.

    An end without an answer is an ``asyncio.IncompleteReadError``, a reset a ``ConnectionError``; both fail the test.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    @asynccontextmanager
    async def connect(cls, port: int, tls: ssl.SSLContext | None) -> AsyncIterator[Client]:
        """A new connection, closed at the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()

    async def ask(self, method: str, target: str, headers: str = "", body: bytes = b"") -> Answer:
        """Send a request, and read the whole answer."""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self.writer.write(f"{method} {target} HTTP/1.1\r\nHost: a\r\n{headers}{length}\r\n".encode() + body)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        found = dict(line.lower().split(": ", 1) for line in head[1:-2])
        status = int(head[0].split()[1])
        answer = Answer(status, found, b"")
        if found.get("transfer-encoding") == "chunked":
            answer.body = await self._chunks()
        elif "content-length" in found:
            answer.body = await self.reader.readexactly(int(found["content-length"]))
        if answer.is_last:
            # The answer was the last byte: an end, not a reset.
            assert await self.reader.read() == b""
        return answer

    async def _chunks(self) -> bytes:
        found = b""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            found += (await self.reader.readexactly(size + 2))[:size]
            if not size:
                return found


@define
class Crowd:
    """All the clients of one server.

    :param acknowledged: the numbers that each writer has got an acknowledgement for.
    :param events: what each reader of events has got.
    :param polls_ended: how many have ended their long-polls because they were told to.
    """

    port: int
    tls: ssl.SSLContext | None
    acknowledged: list[int] = field(default=Factory(lambda: [-1] * WRITERS))
    polls_ended: int = 0
    events: list[bytes] = field(factory=list)

    async def write(self, number: int) -> None:
        """Append one message after the other, as an idempotent producer."""
        headers = f"Content-Type: application/json\r\nProducer-Id: w{number}\r\nProducer-Epoch: 0\r\n"
        target, is_last = f"/v1/stream/s{number % STREAMS}", False
        async with Client.connect(self.port, self.tls) as client:
            while not is_last:
                sequence = self.acknowledged[number] + 1
                body = json.dumps([[number, sequence]]).encode()
                answer = await client.ask("POST", target, f"{headers}Producer-Seq: {sequence}\r\n", body)
                assert answer.status == 200, answer
                self.acknowledged[number], is_last = sequence, answer.is_last

    async def follow(self, number: int) -> None:
        """Follow a stream by Server-Sent Events until the server ends them."""
        async with Client.connect(self.port, self.tls) as client:
            answer = await client.ask("GET", f"/v1/stream/s{number % STREAMS}?offset=-1&live=sse")
        assert answer.status == 200
        self.events.append(answer.body)

    async def poll(self, number: int) -> None:
        """Follow a stream by long-polls, until an answer says that the server closes the connection."""
        target = f"/v1/stream/{'quiet' if number % 2 else f's{number % STREAMS}'}"
        offset, cursor, is_last = "now", "", False
        async with Client.connect(self.port, self.tls) as client:
            while not is_last:
                answer = await client.ask("GET", f"{target}?offset={offset}&live=long-poll{cursor}")
                assert answer.status in (200, 204), answer
                offset, is_last = answer.headers["stream-next-offset"], answer.is_last
                cursor = f"&cursor={answer.headers['stream-cursor']}"
        self.polls_ended += 1

    async def live_readers(self) -> int:
        """How many live readers wait at the server."""
        async with Client.connect(self.port, self.tls) as client:
            answer = await client.ask("GET", "/health", "Connection: close\r\n")
        counted: int = json.loads(answer.body)["live_readers"]
        return counted


async def run_through_stop(server: ChildServer, tls: ssl.SSLContext | None) -> Crowd:
    """Let everybody in, let them work, stop the server, and wait for everybody's end."""
    crowd = Crowd(server.port, tls)
    clients = [asyncio.create_task(crowd.follow(number)) for number in range(SSE_READERS)]
    clients += [asyncio.create_task(crowd.poll(number)) for number in range(LONG_POLLERS)]
    async with asyncio.timeout(120):
        while await crowd.live_readers() < SSE_READERS + LONG_POLLERS:  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.05)
        clients += [asyncio.create_task(crowd.write(number)) for number in range(WRITERS)]
        while min(crowd.acknowledged) < 3:  # noqa: ASYNC110 (a look now and then is all that it takes)
            await asyncio.sleep(0.05)
        server.process.terminate()
        await asyncio.gather(*clients)
    return crowd


def use_tls(directory: Path) -> tuple[dict[str, str], ssl.SSLContext]:
    """What makes a server speak TLS, and a client of it."""
    authority = Authority(directory)
    identity = authority.issue("server")
    settings = {
        "DS_TRANSPORT__MODE": "tls",
        "DS_TRANSPORT__TLS__CERT_PATH": str(identity.certificate),
        "DS_TRANSPORT__TLS__KEY_PATH": str(identity.key),
    }
    return settings, ssl.create_default_context(cafile=str(authority.path))


async def create(server: ChildServer, tls: ssl.SSLContext | None, *names: str) -> None:
    """Create JSON streams."""
    async with Client.connect(server.port, tls) as client:
        for name in names:
            answer = await client.ask("PUT", f"/v1/stream/{name}", "Content-Type: application/json\r\n")
            assert answer.status == 201


def stored(server: ChildServer, name: str) -> list[tuple[int, int]]:
    """The messages of a stream: which writer, which number."""
    found: list[tuple[int, int]] = []
    offset, up_to_date = "-1", None
    while up_to_date is None:
        with urllib.request.urlopen(f"{server.url}/v1/stream/{name}?offset={offset}", timeout=30) as answer:
            found += [(writer, sequence) for writer, sequence in json.load(answer)]
            offset, up_to_date = answer.headers["Stream-Next-Offset"], answer.headers["Stream-Up-To-Date"]
    return found


@pytest.mark.parametrize(("delay", "secure"), [(0, False), (2, False), (0, True)])
def test_drain(tmp_path: Path, delay: int, secure: bool) -> None:
    """1,100 clients are all told to go, none is reset or left without an answer, and nothing acknowledged is lost.

    Clients go when an answer says that the connection closes. With a delay the writers' next answers say so; without
    one it is the same, but connections that ask nothing are closed after a second.
    """
    environ = {"DS_STORAGE__MODE": "file-durable", "DS_STORAGE__DATA_DIR": str(tmp_path / "data")}
    settings, tls = use_tls(tmp_path) if secure else ({}, None)
    settings["DS_SERVER__DRAIN_DELAY_SECS"] = str(delay)
    with twistd_server(tmp_path, environ=environ | settings) as server:
        asyncio.run(create(server, tls, "quiet", *(f"s{number}" for number in range(STREAMS))))
        crowd = asyncio.run(run_through_stop(server, tls))
        assert server.process.wait(60) == 0
        log = server.log.read_text()
    assert "Traceback" not in log
    assert "cutting" not in log
    assert (len(crowd.events), crowd.polls_ended) == (SSE_READERS, LONG_POLLERS)
    assert all(re.search(rb"}\n(id:[^\n]+\n)?\n$", events) for events in crowd.events)
    with twistd_server(tmp_path, environ=environ) as server:
        for number in range(STREAMS):
            messages = stored(server, f"s{number}")
            for writer in range(number, WRITERS, STREAMS):
                expected = list(range(crowd.acknowledged[writer] + 1))
                assert [sequence for found, sequence in messages if found == writer] == expected
