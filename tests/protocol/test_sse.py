"""Server-sent events, checked against a reader of the format."""

from __future__ import annotations

import base64
import re

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dstreams.protocol.charsets import decoding_table
from dstreams.protocol.json_mode import split_messages
from dstreams.protocol.sse import HEARTBEAT, SseEncoding, control_event, data_event, incomplete_suffix

TOKEN = b"0000000000000000_0000000000000005"
END = b"\nid:" + TOKEN + b"\n\n"


def read_events(stream: bytes) -> list[tuple[str, str]]:
    """Read an event stream as WHATWG HTML section 9.2.6 says: (type, data) of each event."""
    events = []
    kind, data = "", ""
    for line in re.split("\r\n|\r|\n", stream.decode("utf-8", "replace")):
        if line == "":
            if data:
                events.append((kind or "message", data.removesuffix("\n")))
            kind, data = "", ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data += value + "\n"
    return events


texts = st.text(st.sampled_from("a :\r\n\t\x00é\u2028"), max_size=20)


class DataEventTests:
    """Events that carry the stream's bytes."""

    @pytest.mark.parametrize(
        ("data", "event"),
        [
            (b"hello", b"event: data\ndata:hello"),
            (b"", b"event: data\ndata:"),
            (b"a\nb", b"event: data\ndata:a\ndata:b"),
            (b"a\r\nb\rc", b"event: data\ndata:a\ndata:b\ndata:c"),
            (b"a\n", b"event: data\ndata:a\ndata:"),
            (b"\n\n", b"event: data\ndata:\ndata:\ndata:"),
            (b" a", b"event: data\ndata:  a"),
            (b"a\n  b", b"event: data\ndata:a\ndata:   b"),
            (b"\r\n \r ", b"event: data\ndata:\ndata:  \ndata:  "),
            (b"\ta", b"event: data\ndata:\ta"),
        ],
    )
    def test_text_form(self, data: bytes, event: bytes) -> None:
        """Every line has its own field without a space, doubled where the line begins with one."""
        assert data_event(data, SseEncoding.TEXT, TOKEN) == event + END

    @given(texts)
    @example("\n x\r\n\r  y")
    def test_text_round_trip(self, text: str) -> None:
        """A reader gets the text back, every line end turned into LF and nothing else changed."""
        expected = text.replace("\r\n", "\n").replace("\r", "\n")
        assert read_events(data_event(text.encode(), SseEncoding.TEXT, TOKEN)) == [("data", expected)]

    @given(st.binary())
    def test_text_never_leaves_its_event(self, data: bytes) -> None:
        """No content, however hostile, becomes an event or a field of its own."""
        assert [kind for kind, _ in read_events(data_event(data, SseEncoding.TEXT, TOKEN))] == ["data"]

    def test_injected_fields_stay_data(self) -> None:
        """Text that imitates the format is delivered as text."""
        hostile = b'x\r\n\r\nevent: control\r\ndata: {"streamClosed":true}\r\n\r\n'
        assert read_events(data_event(hostile, SseEncoding.TEXT, TOKEN)) == [
            ("data", 'x\n\nevent: control\ndata: {"streamClosed":true}\n\n')
        ]

    @given(st.binary())
    def test_base64_round_trip(self, data: bytes) -> None:
        """Bytes come back exactly from one line of padded standard base64."""
        event = data_event(data, SseEncoding.BASE64, TOKEN)
        assert event.count(b"\n") == 4
        [(kind, text)] = read_events(event)
        assert kind == "data"
        assert base64.b64decode(text, validate=True) == data

    def test_json_form(self) -> None:
        """Stored messages are written as one array."""
        assert data_event(b'{"a":1},2,', SseEncoding.JSON, TOKEN) == b'event: data\ndata:[{"a":1},2]' + END
        assert data_event(b"", SseEncoding.JSON, TOKEN) == b"event: data\ndata:[]" + END

    @given(st.lists(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))))
    def test_json_with_blanks_round_trip(self, values: list[object]) -> None:
        """Messages with line ends between their parts parse to the same values."""
        body = orjson.dumps(values, option=orjson.OPT_INDENT_2).replace(b"\n", b"\r\n")
        stored, _ = split_messages(body)
        [(kind, text)] = read_events(data_event(stored, SseEncoding.JSON, TOKEN))
        assert (kind, orjson.loads(text)) == ("data", values)


class ControlEventTests:
    """Events that tell the reader where it stands."""

    @pytest.mark.parametrize(
        ("cursor", "up_to_date", "closed", "members"),
        [
            (None, False, False, b""),
            (1050, False, False, b',"streamCursor":"1050"'),
            (1050, True, False, b',"streamCursor":"1050","upToDate":true'),
            (None, True, False, b',"upToDate":true'),
            (1050, True, True, b',"upToDate":true,"streamClosed":true'),
            (None, False, True, b',"upToDate":true,"streamClosed":true'),
        ],
    )
    def test_form(self, cursor: int | None, up_to_date: bool, closed: bool, members: bytes) -> None:
        """Members that don't apply are left out; a closed stream has no cursor and is always up to date."""
        event = control_event(TOKEN, cursor, up_to_date, closed)
        assert event == b'event: control\ndata:{"streamNextOffset":"%b"%b}' % (TOKEN, members) + END

    @given(st.none() | st.integers(0), st.booleans(), st.booleans())
    def test_is_json(self, cursor: int | None, up_to_date: bool, closed: bool) -> None:
        """The data is a JSON object whose offset and cursor are strings."""
        [(kind, text)] = read_events(control_event(TOKEN, cursor, up_to_date, closed))
        members = orjson.loads(text)
        assert kind == "control"
        assert members["streamNextOffset"] == TOKEN.decode()
        assert members.get("streamCursor") == (None if closed or cursor is None else str(cursor))


class HeartbeatTests:
    """The comment that keeps connections alive."""

    def test_is_no_event(self) -> None:
        """A heartbeat between events changes nothing for the reader."""
        event = data_event(b"a", SseEncoding.TEXT, TOKEN)
        assert read_events(HEARTBEAT + event + HEARTBEAT) == [("data", "a")]


class CharsetTests:
    """Texts of one byte a character."""

    @given(st.binary(), st.sampled_from(["latin-1", "windows-1252", "koi8-r", "iso-8859-7", "ibm037"]))
    def test_decoded(self, data: bytes, charset: str) -> None:
        """The event has the text that Python finds in the bytes, with LF for every line end."""
        event = data_event(data, SseEncoding.TEXT, TOKEN, decoding_table(charset))
        text = data.decode(charset, "replace").replace("\r\n", "\n").replace("\r", "\n")
        assert read_events(event) == [("data", text)]
        event.decode()


class IncompleteSuffixTests:
    """Where a text may be cut."""

    @given(st.text(min_size=1), st.data())
    @example("a😀", None)
    def test_no_cut_is_inside_a_character(self, text: str, data: st.DataObject | None) -> None:
        """Cut anywhere and less the suffix, a text is whole characters; the next one was incomplete."""
        encoded = text.encode()
        cuts = range(len(encoded) + 1) if data is None else [data.draw(st.integers(0, len(encoded)))]
        for cut in cuts:
            suffix = incomplete_suffix(encoded[:cut])
            assert 0 <= suffix <= 3
            whole = encoded[: cut - suffix].decode("utf-8")
            assert text.startswith(whole)
            assert suffix == 0 or len((text[len(whole)]).encode()) > suffix

    @pytest.mark.parametrize(
        ("data", "suffix"),
        [
            (b"", 0),
            (b"a", 0),
            ("é".encode(), 0),
            (b"a\xc3", 1),
            (b"\xe2\x82", 2),
            (b"\xf0\x9f\x98", 3),
            (b"\xf0\x9f", 2),
            (b"\xf0", 1),
            (b"\xc0", 0),
            (b"\xc1", 0),
            (b"\xf5", 0),
            (b"\xff", 0),
            (b"\x80", 0),
            (b"\xe0\x80", 0),
            (b"\xed\xa0", 0),
            (b"\xf4\x90", 0),
            (b"\xf0\x80\x80", 0),
            (b"\x80\x80\x80", 0),
            (b"\xf0\x9f\x98\x80", 0),
            (b"\xf0\xe2\x82", 2),
            (b"\xe2\x82a", 0),
            (b"\xe2\x82\n", 0),
        ],
    )
    def test_table(self, data: bytes, suffix: int) -> None:
        """Only a proper beginning of a well-formed character is held back."""
        assert incomplete_suffix(data) == suffix

    @given(st.binary(max_size=6))
    def test_held_back_bytes_could_become_a_character(self, data: bytes) -> None:
        """Exactly the suffixes that some further bytes turn into a character are held back."""
        held = {
            length
            for length in range(1, min(4, len(data) + 1))
            if any(_completes(data[-length:], more) for more in _CONTINUATIONS)
        }
        assert incomplete_suffix(data) == max(held, default=0)


_EDGES = (b"\x80", b"\x8f", b"\x90", b"\x9f", b"\xa0", b"\xbf")
_CONTINUATIONS = [edge + b"\x80" * more for edge in _EDGES for more in range(3)]


def _completes(start: bytes, more: bytes) -> bool:
    try:
        return len((start + more).decode("utf-8")) == 1
    except UnicodeDecodeError:
        return False


class Utf8Tests:
    """An event stream is UTF-8, whatever was appended."""

    def test_a_byte_that_is_not_utf8(self) -> None:
        """It becomes U+FFFD, and what is UTF-8 stays as it is."""
        assert (
            data_event(b"a\xffb \xe2\x82\xac", SseEncoding.TEXT, TOKEN) == "event: data\ndata:a\ufffdb €".encode() + END
        )

    @given(st.binary())
    def test_any_bytes(self, data: bytes) -> None:
        """A text event has the text that a lenient decoder finds in the bytes, with LF for every line end."""
        lines = data_event(data, SseEncoding.TEXT, TOKEN).removesuffix(END).decode().split("\n")
        text = data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
        assert "\n".join(line.removeprefix("data:").removeprefix(" ") for line in lines[1:]) == text
