"""A scripted life of a store, in which every call that changes the disk can be made to fail."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from attrs import define, field
from twisted.internet.task import Clock

from dstreams.protocol.content_types import ContentType, parse_content_type
from dstreams.protocol.producers import Producer
from dstreams.streams.appending import AppendRequest
from dstreams.streams.creating import CreateRequest, ForkRequest
from tests.crash.disk import Fault, Mount, Platter, Step
from tests.crash.history import History, Violation
from tests.crash.machine import Process
from tests.crash.workload import Workload

JSON = parse_content_type(b"application/json")
TEXT = parse_content_type(b"text/plain")

Faults = Callable[[Step], Fault | None]


def none(_: Step) -> None:
    """Nothing fails."""


@define(eq=False)
class Script:
    """The life.

    :param checkpoint_bytes: when a checkpoint is due.
    :param spare_after: when a spare segment is made.
    """

    durable: bool = True
    checkpoint_bytes: int = 700
    spare_after: int | None = field(default=100, kw_only=True)
    platter: Platter = field(factory=Platter, init=False)
    history: History = field(init=False)
    clock: Clock = field(factory=Clock, init=False)
    refusals: list[BaseException] = field(factory=list, init=False)
    process: Process = field(init=False)
    _workload: Workload | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.history = History(self.durable)
        self.clock.advance(1_000_000.0)

    def begin(self, faults: Faults = none, crash_at: int | None = None, crash_how: str = "before") -> Process:
        """Start a process.

        :param faults: what fails from then on.
        :param crash_at: the call at which it ends, and how; as for a ``Mount``.
        :raise StorageError: when the store can't be opened.
        """
        mount = Mount(self.platter)
        self.process = Process(mount, self.history, self.clock, self.checkpoint_bytes, spare_after=self.spare_after)
        self.process.make_directory()
        mount.fault, mount.crash_at, mount.crash_how = faults, crash_at, crash_how
        self.process.open()
        return self.process

    def play(self) -> None:
        """Use everything that a store can do, with several changes in flight at a time."""
        self.create("a", JSON, b"[1,2,3]")
        self.create("b", TEXT, b"")
        self.settle()
        for number in range(4):
            self.append("a", b'{"n":%d}' % number, Producer("p", 0, number))
            self.append("b", b"x" * 60, None)
        self.settle()
        self.checkpoint()
        self.fork("f", "a")
        self.append("b", b"y" * 300, None)
        self.settle()
        self.append("f", b"[4,5]", Producer("p", 0, 0))
        self.delete("a")
        self.append("b", b"z" * 400, None)
        self.settle()
        self.append("b", b"", None, closes=True)
        self.create("c", JSON, b"[]")
        self.settle()
        self.delete("f")
        self.delete("b")
        self.append("c", b"[6]", Producer("q", 1, 0))
        self.settle()
        self.checkpoint()
        self.append("c", b"[7]", Producer("q", 1, 1))
        self.settle()

    def end(self, *, lose_power: Random | None = None) -> None:
        """Kill the process."""
        self.process.end()
        if lose_power is not None:
            self.platter.lose_power(lose_power)

    def check(self, *, power_lost: bool = False) -> None:
        """See that the store holds what it must."""
        self.history.recovered(self.process.views(), power_lost=power_lost)

    def append(self, name: str, body: bytes, producer: Producer | None = None, *, closes: bool = False) -> None:
        """Send an append."""
        state = self.process.streams._commits.accepted.find(name)
        if state is None:
            return  # its creation failed
        kind = state.config.content_type.value.encode()
        request = AppendRequest(kind, closes, producer, None)
        self._client.send(lambda: self.process.streams.append(name, request, body))

    def create(self, name: str, kind: ContentType = TEXT, body: bytes = b"") -> None:
        """Send a create."""
        request = CreateRequest(name, kind, None, None, False, None, len(body), body)
        self._client.send(lambda: self.process.streams.create(request))

    def fork(self, name: str, source: str) -> None:
        """Send a create that forks a stream at its tail."""
        request = CreateRequest(name, None, None, None, False, ForkRequest(source, None, 0), 0, b"")
        self._client.send(lambda: self.process.streams.create(request))

    def delete(self, name: str) -> None:
        """Send a delete."""
        self._client.send(lambda: self.process.streams.delete(name))

    def checkpoint(self) -> None:
        """Take a checkpoint and let it finish."""
        self.process.store.checkpoint()
        self.settle()

    def settle(self) -> None:
        """Let all threads finish; everybody has an answer then."""
        self.process.drain()
        self.process.note_progress()
        self.process.raise_problems()
        if self._client.unanswered:
            raise Violation(f"{self._client.unanswered} requests are never answered")

    @property
    def _client(self) -> Workload:
        if self._workload is None or self._workload.process is not self.process:
            self._workload = Workload(self.process, Random(0), self.refusals.append)
        return self._workload
