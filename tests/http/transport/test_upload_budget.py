"""How much memory bodies may take that are arriving."""

from __future__ import annotations

import pytest
from attrs import evolve

from dstreams.config import Config
from dstreams.http.transport.upload_budget import SMALL_BYTES, UploadBudget
from dstreams.server import http_limits, http_settings

KB = 1024


class BodyRoomTests:
    """Counting what has come."""

    def test_begin(self) -> None:
        """A body may begin to arrive when it is small, has no known length, or has room for all of it."""
        room = UploadBudget(1000 * KB)
        assert room.hold(0, 900 * KB) == 900 * KB
        assert room.admits(100 * KB)
        assert not room.admits(100 * KB + 1)
        assert room.admits(SMALL_BYTES)
        assert room.admits(None)
        assert room.refused == 1

    def test_grow(self) -> None:
        """What comes is counted from when it is more than a little, and no longer once the body is complete."""
        room = UploadBudget(1000 * KB)
        assert room.hold(0, SMALL_BYTES) == 0
        assert room.used == 0
        held = room.hold(0, SMALL_BYTES + 1)
        held = room.hold(held, 300 * KB)
        assert (held, room.used) == (300 * KB, 300 * KB)
        room.free(held)
        assert room.used == 0

    def test_no_room(self) -> None:
        """A body that grows beyond what there may be isn't counted any more; others go on."""
        room = UploadBudget(1000 * KB)
        one, other = room.hold(0, 500 * KB), room.hold(0, 400 * KB)
        assert room.hold(one, 601 * KB) == -1
        assert (room.used, room.refused) == (400 * KB, 1)
        assert room.hold(other, 1000 * KB) == 1000 * KB


@pytest.mark.parametrize(("stream", "buffered", "body"), [(10, 1 << 20, 10), (1 << 30, 1 << 20, 1 << 20)])
def test_one_body(stream: int, buffered: int, body: int) -> None:
    """A single body may have what one stream may hold, but not more than all bodies together."""
    config = Config()
    config = evolve(config, limits=evolve(config.limits, max_stream_bytes=stream, max_buffered_bytes=buffered))
    assert http_settings(config).max_body_bytes == body
    assert http_limits(config).max_buffered_bytes == buffered
