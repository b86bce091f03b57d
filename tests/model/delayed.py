"""The machine over storage whose commits take their time, and fail now and then."""

from __future__ import annotations

import copy

from hypothesis.stateful import precondition, rule

from dstreams.storage.interface import Charges, Storage, StorageError
from tests.model.machine import StreamsMachine
from tests.model.reference import Model, Put
from tests.support.engine import DelayedStorage


class DelayedStreamsMachine(StreamsMachine):
    """The same with commits at random moments, some of which fail."""

    def __init__(self) -> None:
        super().__init__()
        self.committed = self.snapshot(self.accepted)
        self.committing: Model | None = None

    def storage(self) -> Storage:
        self.disk = DelayedStorage(charges=Charges())
        return self.disk

    @property
    def durable(self) -> Model:
        return self.committed

    def snapshot(self, model: Model) -> Model:
        return copy.deepcopy(model, {id(self.times): self.times})

    def settle(self) -> None:
        """Note what the commit under way holds: all that was accepted when it began."""
        if self.disk.busy and self.committing is None:
            self.committing = self.snapshot(self.accepted)

    def put_model(self, name: str, put: Put, body: bytes, closed: bool) -> int:
        """A fork is taken of what readers see, if writers see it too."""
        source = self.accepted.streams.get(put.source) if put.source else None
        there = self.committed.streams.get(put.source) if put.source else None
        if name in self.accepted.streams or source is None or source.deleted:
            return super().put_model(name, put, body, closed)
        if there is None or there.id != source.id:
            return 404
        units, boundaries = source.units, source.boundaries
        source.units, source.boundaries = there.units, there.boundaries
        status = super().put_model(name, put, body, closed)
        source.units, source.boundaries = units, boundaries
        return status

    @precondition(lambda self: self.disk.busy)
    @rule()
    def finish(self) -> None:
        """The commit under way succeeds."""
        assert self.committing is not None
        self.disk.finish()
        self.committed, self.committing = self.committing, None
        for stream in self.committed.streams.values():
            self.times.used.setdefault(stream.id, self.times.now)
        self.arrive()
        self.settle()

    @precondition(lambda self: self.disk.busy)
    @rule()
    def fail(self) -> None:
        """The commit under way fails, and all that was accepted after it."""
        self.disk.fail(StorageError("the model's disk is broken"))
        self.accepted, self.committing = self.snapshot(self.committed), None
        for reply, _ in self.outstanding:
            assert reply.status == 503
        self.outstanding.clear()
        self.puts.clear()

    def settle_down(self) -> None:
        while self.disk.busy:
            self.finish()
        self.committed = self.snapshot(self.accepted)

    def arrive(self) -> None:
        """Compare the answers that have come."""
        waiting = []
        for reply, expected in self.outstanding:
            if reply.waits:
                waiting.append((reply, expected))
            else:
                self.compare(reply, expected)
        self.outstanding = waiting
        assert self.disk.busy or not waiting

    def teardown(self) -> None:
        self.settle_down()
