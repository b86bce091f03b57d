"""The entries that ``durable-streams list`` prints, as a table or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
from attrs import frozen

from dstreams.config.problems import printable
from dstreams.model.state import StreamState
from dstreams.transfer.records import timestamp

_COLUMNS = (("Name", 30), ("Status", 8), ("Messages", -10), ("Bytes", -12), ("Content-Type", 24), ("Created", 22),
            ("Updated", 22))  # fmt: skip
"""The columns and their widths; a negative width right-aligns numbers."""

_UNITS = ("KB", "MB", "GB")


@frozen(kw_only=True)
class Listed:
    """One stream. Unknown values are ``None``.

    :param messages: the number of its own messages. What a fork inherits is not counted, nor is it in ``total_bytes``.
    :param created_at: Unix seconds, like the other times.
    """

    name: str
    closed: bool
    content_type: str
    messages: int | None = None
    total_bytes: int | None = None
    created_at: float | None = None
    updated_at: float | None = None
    ttl: int | None = None
    expires_at: float | None = None

    @classmethod
    def of(cls, state: StreamState) -> Listed:
        """Return the entry for a stream whose state is known."""
        return cls(
            name=state.name,
            closed=state.closed,
            content_type=state.config.content_type.value,
            messages=state.messages,
            total_bytes=state.size,
            created_at=state.created_at,
            updated_at=None if state.updated_at == state.created_at else state.updated_at,
            ttl=state.config.ttl,
            expires_at=state.config.expires_at,
        )

    @property
    def members(self) -> dict[str, Any]:
        """The members that ``--json`` prints."""
        return {
            "name": self.name,
            "status": self._status,
            "message_count": self.messages,
            "total_bytes": self.total_bytes,
            "content_type": self.content_type,
            "created_at": timestamp(self.created_at),
            "updated_at": timestamp(self.updated_at),
            "ttl_seconds": self.ttl,
            "expires_at": timestamp(self.expires_at),
        }

    @property
    def _status(self) -> str:
        return "closed" if self.closed else "open"

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of the stream's row in the table; control and direction characters are escaped."""
        return (
            printable(self.name),
            self._status,
            "-" if self.messages is None else str(self.messages),
            _size(self.total_bytes),
            self.content_type,
            _moment(self.created_at),
            _moment(self.updated_at),
        )


def as_json(streams: Iterable[Listed]) -> Iterator[str]:
    """Yield the lines of a JSON array of the streams."""
    before = "["
    for listed in streams:
        yield before
        text = orjson.dumps(listed.members, option=orjson.OPT_INDENT_2).decode()
        before = "  " + text.replace("\n", "\n  ") + ","
    if before == "[":
        yield "[]"
    else:
        yield before.removesuffix(",")
        yield "]"


def as_table(streams: Iterable[Listed]) -> Iterator[str]:
    """Yield the lines of a table of the streams."""
    count = 0
    for count, listed in enumerate(streams, 1):
        if count == 1:
            yield _row(tuple(name for name, _ in _COLUMNS))
            yield "-" * 132
        yield _row(listed.cells)
    if not count:
        yield "No streams found."
        return
    yield ""
    yield f"{count} stream(s) total"


def _row(cells: tuple[str, ...]) -> str:
    parts = []
    for cell, (_, width) in zip(cells, _COLUMNS, strict=True):
        room = abs(width)
        shown = cell if len(cell) <= room else cell[: room - 3] + "..."
        parts.append(shown.rjust(room) if width < 0 else shown.ljust(room))
    return " ".join(parts).rstrip()


def _size(count: int | None) -> str:
    if count is None:
        return "-"
    if count < 1024:
        return f"{count} B"
    power = min((count.bit_length() - 1) // 10, len(_UNITS))
    return f"{count / 1024**power:.1f} {_UNITS[power - 1]}"


def _moment(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
