"""How many clients are let in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.tcp import Port
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent

from dstreams.services.admission import ACCEPTS_AT_ONCE, QUIET_SECONDS, Admission, admit


class QueuePort(Port):
    """A port without a socket, and clients that wait to be accepted."""

    def __init__(self, house: House) -> None:
        super().__init__(0, Factory(), reactor=MemoryReactorClock())
        self.house = house
        self.queue = 0
        self.numberAccepts = 100
        self.reads = True

    def doRead(self) -> None:  # noqa: N802
        """Accept as Twisted's port does: as many in one go as it is set to."""
        most = self.numberAccepts
        accepted = min(self.queue, most)
        self.queue -= accepted
        self.house.live.update(object() for _ in range(accepted))
        self.sessionno += accepted
        self.numberAccepts = most + 20 if accepted == most else max(1, accepted)

    def stopReading(self) -> None:  # noqa: N802
        self.reads = False

    def startReading(self) -> None:  # noqa: N802
        self.reads = True


@define(eq=False)
class House:
    """Connections, and the ports by which they come in."""

    clock: Clock = field(factory=Clock)
    live: set[object] = field(factory=set)
    when_lost: Callable[[], object] | None = None
    ports: list[QueuePort] = field(factory=list)
    admission: Admission = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.admission = admit(self, self.clock, "server.max_connections", 150)
        self.admission.begin_slice = lambda: lambda: False
        for _ in range(2):
            port = QueuePort(self)
            assert self.admission.watch(port)
            self.ports.append(port)

    def turn(self) -> None:
        """What a reactor does: let the ports accept that are read from and have somebody waiting."""
        ports: list[Any] = self.ports
        for port in ports:
            if port.reads and port.queue:
                port.doRead()

    def leave(self, count: int) -> None:
        assert self.when_lost is not None
        for _ in range(count):
            self.live.pop()
            self.when_lost()


class AdmissionTests:
    """As many as there may be, on all ports together."""

    def test_room(self) -> None:
        """With room for all, all are let in, and the ports are read on."""
        house = House()
        house.ports[0].queue = house.ports[1].queue = 70
        house.turn()
        assert len(house.live) == 140
        assert all(port.reads for port in house.ports)
        assert house.admission.full == 0

    def test_full(self) -> None:
        """Not one too many is accepted, however many Twisted takes in one go; the others wait, and no port is read."""
        house = House()
        house.ports[0].queue = house.ports[1].queue = 400
        for _ in range(9):
            house.turn()
        assert len(house.live) == 150
        assert house.ports[0].queue + house.ports[1].queue == 650
        assert not any(port.reads for port in house.ports)
        assert house.admission.full == 1

    def test_room_again(self) -> None:
        """Whoever leaves makes room for one of those that wait, on any port."""
        house = House()
        house.ports[0].queue = 150
        house.turn()
        house.turn()
        house.ports[1].queue = 3
        house.turn()
        assert house.ports[1].queue == 3
        house.leave(2)
        house.turn()
        assert len(house.live) == 150
        assert house.ports[1].queue == 1
        house.leave(100)
        house.turn()
        assert house.ports[1].queue == 0
        assert all(port.reads for port in house.ports)
        assert house.admission.full == 2

    def test_full_in_one_turn(self) -> None:
        """A port that the reactor asks although it isn't read any more accepts nobody."""
        house = House()
        house.ports[0].queue, house.ports[1].queue = 200, 1
        ports: list[Any] = house.ports
        for _ in range(9):
            ports[0].doRead()
        ports[1].doRead()
        assert house.ports[1].queue == 1
        assert house.admission.full == 1

    def test_slices(self) -> None:
        """However many clients wait, in one turn only as many are let in as there is time for."""
        house = House()
        house.admission.begin_slice = lambda: lambda: len(house.live) >= begun + 20
        house.ports[0].queue = 100
        turns = 0
        while house.ports[0].queue:
            begun = len(house.live)
            house.turn()
            assert 0 < len(house.live) - begun <= 20 + ACCEPTS_AT_ONCE
            turns += 1
        assert turns == 5
        assert len(house.live) == 100

    def test_told(self) -> None:
        """It is told when there is no room, but not every time."""
        house = House()
        house.ports[0].queue = 1000
        with capturedLogs() as events:
            house.turn()
            house.turn()
            for _ in range(5):
                house.leave(1)
                house.turn()
        text = (
            "150 connections are open, as many as there may be (server.max_connections): others wait until one of them"
            " ends"
        )
        assert [formatEvent(event) for event in events] == [text]
        house.clock.advance(QUIET_SECONDS)
        with capturedLogs() as events:
            house.leave(1)
            house.turn()
        assert [formatEvent(event) for event in events] == [text]

    def test_released(self) -> None:
        """Ports that are being closed aren't read again."""
        house = House()
        house.ports[0].queue = 1000
        house.turn()
        house.turn()
        house.admission.release()
        house.leave(150)
        assert not any(port.reads for port in house.ports)

    def test_other_ports(self) -> None:
        """A port that isn't the reactor's own can't be made to wait."""
        port: Any = object()
        assert not House().admission.watch(port)
