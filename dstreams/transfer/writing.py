"""Writes an export document incrementally, without keeping it in memory."""

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
    """One message in an export document.

    :param payload: its bytes; in JSON mode the text without the comma that storage adds.
    :param size: the number of bytes that it takes in storage.
    :param ends_append: whether it is the last message of its append.
    """

    payload: bytes
    size: int
    ends_append: bool = True


@define(eq=False)
class DocumentWriter:
    """Writes a document: call :meth:`begin`, :meth:`add` for every stream, :meth:`end`.

    :param write: called with the document's bytes, in order.
    """

    _write: Callable[[bytes], object]
    streams: int = field(default=0, init=False)
    """The number of streams written."""
    messages: int = field(default=0, init=False)
    """The number of messages written."""

    def begin(self, exported_at: float) -> None:
        """Write the part of the document before the streams.

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
        """Write a stream: one line for its members, and one line for each message."""
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
        """Write the part of the document after the streams."""
        self._write(b"\n  ]\n}\n")
