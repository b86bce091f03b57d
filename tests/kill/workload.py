"""Idempotent producers that go on through any number of kills, and know what was acknowledged to them."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable

from attrs import define, field

PATIENCE = 60.0
"""Seconds for which a request is tried again before the server counts as dead."""


@define(eq=False)
class Line:
    """One producer on one stream: appends 0, 1, 2, … and remembers the last that was acknowledged.

    :param stream: the stream's path.
    :param producer: the producer's id.
    :param refused: how often the server answered that it can't store it now.
    """

    stream: str
    producer: str
    acknowledged: int = -1
    refused: int = 0

    def attempt(self, connection: http.client.HTTPConnection) -> None:
        """Append the next message; raises OSError or HTTPException when there was no answer."""
        number = self.acknowledged + 1
        headers = {
            "Content-Type": "application/json",
            "Producer-Id": self.producer,
            "Producer-Epoch": "0",
            "Producer-Seq": str(number),
        }
        body = json.dumps({"p": self.producer, "n": number, "pad": "x" * (number % 300)})
        connection.request("POST", self.stream, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status in (200, 204):
            self.acknowledged = number
        elif answer.status in (503, 507):
            self.refused += 1
        else:
            raise AssertionError(f"{self.producer} got {answer.status} for {number}: {text!r}")


@define(eq=False)
class Worker:
    """A thread that serves several lines in turn, over one connection at a time.

    :param port: where the server is now.
    :param enough: when to stop.
    """

    lines: list[Line]
    port: Callable[[], int]
    enough: threading.Event
    error: BaseException | None = None
    _thread: threading.Thread = field(init=False)

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join(PATIENCE * 2)
        if self._thread.is_alive():
            raise AssertionError("a worker is stuck")
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error
            self.enough.set()

    def _work(self) -> None:
        connection: http.client.HTTPConnection | None = None
        order = random.Random(id(self))
        last_answer = time.monotonic()
        while not self.enough.is_set():
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port(), timeout=10)
                order.choice(self.lines).attempt(connection)
                last_answer = time.monotonic()
            except (OSError, http.client.HTTPException):
                if connection is not None:
                    connection.close()
                    connection = None
                if time.monotonic() - last_answer > PATIENCE:
                    raise AssertionError(f"no answer for {PATIENCE} s") from None
                time.sleep(0.01)
        if connection is not None:
            connection.close()


def check(lines: list[Line], floor: list[int], messages: list[dict[str, object]], stream: str) -> None:
    """See that a stream holds exactly what its producers sent, once and in order.

    :param floor: what was acknowledged to each line before the stream was read.
    :raise AssertionError: when something acknowledged is lost, or anything is there twice or out of order.
    """
    for line, acknowledged in zip(lines, floor, strict=True):
        if line.stream != stream:
            continue
        numbers = [message["n"] for message in messages if message["p"] == line.producer]
        assert numbers == list(range(len(numbers))), f"{line.producer}: gap, repetition or disorder in {numbers}"
        lost = acknowledged + 1 - len(numbers)
        assert lost <= 0, f"{line.producer}: {lost} acknowledged messages are lost"
        # The last one sent may have been stored without its acknowledgement having arrived.
        beyond = len(numbers) - (line.acknowledged + 1)
        assert beyond <= 1, f"{line.producer}: {beyond} messages beyond the last acknowledged one"


def create(port: int, lines: list[Line]) -> None:
    """Create the lines' streams."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for path in sorted({line.stream for line in lines}):
        connection.request("PUT", path, headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 201
    connection.close()


def verify(port: int, lines: list[Line]) -> None:
    """Read every stream from its start to its end, and check it."""
    for stream in {line.stream for line in lines}:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        floor = [line.acknowledged for line in lines]
        messages: list[dict[str, object]] = []
        offset = "-1"
        while True:
            connection.request("GET", f"{stream}?offset={offset}")
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            messages += json.loads(answer.read())
            offset = str(answer.headers["Stream-Next-Offset"])
            if answer.headers["Stream-Up-To-Date"] == "true":
                break
        connection.close()
        check(lines, floor, messages, stream)
