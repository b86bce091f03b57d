"""Writing a document as it is being made: nothing of it is kept."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Iterable

import orjson
from attrs import define, field, frozen

from dstreams import __version__
from dstreams.protocol.offsets import format_offset
from dstreams.transfer.records import EXTENSION, EXTENSION_VERSION, FORMAT_VERSION, Record, members, timestamp


@frozen
class Message:
    """One message, as a document carries it.

    :param payload: its bytes; in JSON mode its text without the comma that storage adds.
    :param size: how many stored bytes it takes.
    :param ends_append: whether the next message came in another append.
    """

    payload: bytes
    size: int
    ends_append: bool = True


@define(eq=False)
class DocumentWriter:
    """Writes a document: :meth:`begin`, :meth:`add` for every stream, :meth:`end`.

    :param write: takes the document's bytes, in order.
    """

    _write: Callable[[bytes], object]
    streams: int = field(default=0, init=False)
    """How many streams have been written."""
    messages: int = field(default=0, init=False)
    """How many messages they had."""

    def begin(self, exported_at: float) -> None:
        """Write what comes before the streams.

        :param exported_at: Unix seconds.
        """
        head = {
            "format_version": FORMAT_VERSION,
            "exported_at": timestamp(exported_at),
            "server_version": __version__,
            EXTENSION: {"version": EXTENSION_VERSION},
        }
        self._write(orjson.dumps(head, option=orjson.OPT_INDENT_2)[:-2] + b',\n  "streams": [')

    def add(self, record: Record, messages: Iterable[Message]) -> None:
        """Write a stream: one line for its members, and one for each message."""
        self._write((b",\n" if self.streams else b"\n") + b"    " + orjson.dumps(members(record))[:-1])
        self._write(b',"messages":[')
        position = total = count = 0
        for message in messages:
            self._write(
                b'%b\n      {"offset":"%b","data_base64":"%b"%b}'
                % (
                    b"," if count else b"",
                    format_offset(position),
                    b2a_base64(message.payload, newline=False),
                    b"" if message.ends_append else b',"append_continues":true',
                )
            )
            position += message.size
            total += len(message.payload)
            count += 1
        counted = b'],"total_bytes":%d,"message_count":%d,"next_offset":"%b"}'
        self._write((b"\n    " if count else b"") + counted % (total, count, format_offset(position)))
        self.streams += 1
        self.messages += count

    def end(self) -> None:
        """Write what comes after the streams."""
        self._write(b"\n  ]\n}\n")
