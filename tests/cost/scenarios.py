"""What is counted: one turn of each kind of request."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from attrs import frozen

from bench.house import House, request
from tests.cost.counting import Work

_LARGE = 256 * 1024

READERS = 100


@frozen
class Scenario:
    """One kind of request.

    :param prepare: makes what is needed and gives the work of one turn.
    :param modes: of the storage.
    """

    title: str
    prepare: Callable[[House], Work]
    modes: tuple[str, ...] = ("memory", "file-durable")


def _same(house: House, name: str, data: bytes, status: int) -> Work:
    """The same request again and again, on one connection."""
    connection = house.connect()
    connection.ask(request(b"PUT", name), 201)
    return lambda: connection.ask(data, status)


def append(house: House) -> Work:
    """An append of 100 bytes."""
    return _same(house, "append", request(b"POST", "append", b"x" * 100), 204)


def append_large(house: House) -> Work:
    """An append of 256 KiB, in the pieces in which it would arrive."""
    connection = house.connect()
    connection.ask(request(b"PUT", "large"), 201)
    data = request(b"POST", "large", b"x" * _LARGE)
    pieces = [data[start : start + 65536] for start in range(0, len(data), 65536)]

    def turn() -> None:
        for piece in pieces:
            connection.channel.dataReceived(piece)
        house.settle()
        assert connection.transport.last.startswith(b"HTTP/1.1 204 ")

    return turn


def append_by_producer(house: House) -> Work:
    """An append of 100 bytes with a producer's numbers."""
    connection = house.connect()
    connection.ask(request(b"PUT", "produced"), 201)
    numbers = itertools.count()
    form = b"Producer-Id: p\r\nProducer-Epoch: 0\r\nProducer-Seq: %d\r\n"

    def turn() -> None:
        connection.send(request(b"POST", "produced", b"x" * 100, more=form % next(numbers)))
        assert connection.transport.last.startswith(b"HTTP/1.1 200 ")

    return turn


def duplicate(house: House) -> Work:
    """An append that a producer repeats."""
    producer = b"Producer-Id: p\r\nProducer-Epoch: 0\r\nProducer-Seq: 0\r\n"
    repeated = request(b"POST", "repeated", b"x" * 100, more=producer)
    turn = _same(house, "repeated", repeated, 204)
    house.connect().ask(repeated, 200)
    return turn


def create(house: House) -> Work:
    """A new stream."""
    connection = house.connect()
    numbers = itertools.count(1_000_000)

    def turn() -> None:
        connection.send(request(b"PUT", f"new-{next(numbers)}"))
        assert connection.transport.last.startswith(b"HTTP/1.1 201 ")

    return turn


def head(house: House) -> Work:
    """HEAD."""
    return _same(house, "head", request(b"HEAD", "head"), 200)


def catch_up(house: House) -> Work:
    """A read of ten messages of 100 bytes, from the start."""
    turn = _same(house, "catch-up", request(b"GET", "catch-up", query=b"?offset=-1"), 200)
    for _ in range(10):
        house.connect().ask(request(b"POST", "catch-up", b"x" * 100), 204)
    return turn


def resume(house: House) -> Work:
    """A read that goes on after the third of ten messages of 100 bytes."""
    return _read_from(house, "resume", b"0000000000000300")


def resume_inside(house: House) -> Work:
    """A read from an offset inside the fourth of ten messages of 100 bytes, which no answer has ever given out."""
    return _read_from(house, "resume-inside", b"0000000000000301")


def _read_from(house: House, name: str, position: bytes) -> Work:
    connection = house.connect()
    connection.ask(_binary(request(b"PUT", name)), 201)
    for _ in range(10):
        connection.ask(_binary(request(b"POST", name, b"x" * 100)), 204)
    data = request(b"GET", name, query=b"?offset=0000000000000000_" + position)
    return lambda: connection.ask(data, 200)


def _binary(data: bytes) -> bytes:
    """A request whose stream isn't text: of that any offset would do."""
    return data.replace(b"Content-Type: text/plain", b"Content-Type: application/octet-stream")


def catch_up_large(house: House) -> Work:
    """A read of 256 KiB, from the start."""
    connection = house.connect()
    connection.ask(request(b"PUT", "long"), 201)
    connection.ask(request(b"POST", "long", b"x" * _LARGE), 204)
    data = request(b"GET", "long", query=b"?offset=-1")

    def turn() -> None:
        before = connection.transport.written
        connection.send(data)
        assert connection.transport.written - before > _LARGE

    return turn


def long_poll(house: House) -> Work:
    """A long-poll that waits, and the append that wakes it."""
    reader, writer = house.connect(), house.connect()
    writer.ask(request(b"PUT", "polled"), 201)
    poll, data = request(b"GET", "polled", query=b"?offset=now&live=long-poll"), request(b"POST", "polled", b"x" * 100)

    def turn() -> None:
        reader.channel.dataReceived(poll)
        answered = reader.transport.writes
        writer.send(data)
        assert reader.transport.writes == answered + 1

    return turn


def fan_out(readers: int) -> Callable[[House], Work]:
    """An append of 100 bytes that so many SSE readers get."""

    def prepare(house: House) -> Work:
        turn = _same(house, "fan-out", request(b"POST", "fan-out", b"x" * 100), 204)
        connections = [house.listen("fan-out") for _ in range(readers)]

        def checked() -> None:
            before = connections[-1].transport.written
            turn()
            assert connections[-1].transport.written > before + 100

        return checked if readers else turn

    return prepare


SCENARIOS = (
    Scenario("append 100 B", append),
    Scenario("append 256 KiB", append_large),
    Scenario("append by a producer", append_by_producer),
    Scenario("duplicate", duplicate),
    Scenario("create", create),
    Scenario("HEAD", head),
    Scenario("catch-up 1 KB", catch_up),
    Scenario("catch-up 256 KiB", catch_up_large),
    Scenario("read from an offset", resume),
    Scenario("read from an offset inside a message", resume_inside),
    Scenario("long-poll and the append that wakes it", long_poll),
    Scenario("append to 1 SSE reader", fan_out(1)),
    Scenario(f"append to {READERS} SSE readers", fan_out(READERS), ("memory",)),
)
