"""Live readers: what they count, and the figures that come of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.live import FanOut, IdleReaders, percentile, shares
from bench.readers import EVENT_BYTES, SseConnection, Tally, event_text, rounded
from bench.servers import Target, dstreams_server
from bench.workload import BYTES_EACH, CPU_EVENT, P50, P99, Run

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: control\ndata: {}\n\n"


class PercentileTests:
    def test_values(self) -> None:
        """The value that so large a share of all doesn't exceed."""
        latencies = Counter({10: 50, 20: 49, 1000: 1})
        assert percentile(latencies, 0.5) == 10
        assert percentile(latencies, 0.51) == 20
        assert percentile(latencies, 0.99) == 20
        assert percentile(latencies, 1) == 1000

    def test_nothing(self) -> None:
        """Of nothing there is none."""
        with pytest.raises(ValueError, match="nothing"):
            percentile(Counter(), 0.5)


class SharesTests:
    @pytest.mark.parametrize(("count", "parts", "expected"), [(10, 3, [4, 3, 3]), (2, 4, [1, 1, 0, 0]), (8, 1, [8])])
    def test_sum(self, count: int, parts: int, expected: list[int]) -> None:
        """Nobody is left out, and none has much more than another."""
        assert shares(count, parts) == expected


class RoundedTests:
    @pytest.mark.parametrize(("given", "expected"), [(7, 7), (999, 999), (1009, 1000), (123_456, 123_000)])
    def test_digits(self, given: int, expected: int) -> None:
        """Three digits remain."""
        assert rounded(given) == expected


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class ConnectionTests:
    def test_cut_anywhere(self, loop: asyncio.AbstractEventLoop) -> None:
        """Every event is counted once, wherever the bytes are cut, and several in one piece, too."""
        events = b"".join(b"event: data\ndata: %b\n\n" % event_text(number) for number in (1, 2))
        for cut in range(len(events)):
            tally = Tally()
            connection = SseConnection(b"", tally, loop.create_future())
            connection.data_received(_HEAD)
            connection.data_received(events[:cut])
            connection.data_received(events[cut:])
            assert len(tally.latencies) == 2, cut
            assert tally.latencies[0] - tally.latencies[1] in range(-10_000, 2)
            assert min(tally.latencies) > 0

    def test_head_in_parts(self, loop: asyncio.AbstractEventLoop) -> None:
        """A reader is there when its head is, not before."""
        ready = loop.create_future()
        connection = SseConnection(b"", Tally(), ready)
        connection.data_received(_HEAD[:30])
        assert not ready.done()
        connection.data_received(_HEAD[30:])
        assert ready.done()

    def test_refused(self, loop: asyncio.AbstractEventLoop) -> None:
        """A reader that is refused is an error, and isn't waited for."""
        tally, ready = Tally(), loop.create_future()
        SseConnection(b"", tally, ready).data_received(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
        assert tally.errors == ["HTTP/1.1 503 Service Unavailable"]
        assert ready.done()

    def test_lost(self, loop: asyncio.AbstractEventLoop) -> None:
        """A connection that ends is an error: its events would be missing."""
        tally = Tally()
        connection = SseConnection(b"", tally, loop.create_future())
        connection.data_received(_HEAD)
        connection.connection_lost(None)
        assert tally.report()["lost"] == 1
        assert "closed it" in tally.errors[0]

    def test_event_text(self) -> None:
        """An event has its length, whatever the time."""
        assert len(event_text(0)) == len(event_text(10**15)) == EVENT_BYTES


def _run(directory: Path) -> Run:
    server = dstreams_server()
    return Run(Target(server, server.modes[0]), directory, 1, 1, lambda _: None)


@pytest.mark.slow
class OursTests:
    def test_fan_out(self, tmp_path: Path) -> None:
        """Every reader of a real server gets every event, and the times and costs are told."""
        found = FanOut(20, 20).measure(_run(tmp_path))
        assert found["events"] == 20
        assert found["delivered"] == 400
        assert 0 < found[P50.key] <= found[P99.key] < 10_000_000
        assert found[CPU_EVENT.key] > 0

    def test_idle(self, tmp_path: Path) -> None:
        """Idle readers cost memory, and get the next event."""
        found = IdleReaders(200).measure(_run(tmp_path))
        assert found["resident_bytes"] > 0
        assert found[BYTES_EACH.key] < 100_000
        assert found["last_delivery_us"] > 0
