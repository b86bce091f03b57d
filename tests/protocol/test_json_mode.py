"""JSON mode: splitting bodies into messages and wrapping them again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dstreams.protocol.json_mode import MAX_DEPTH, split_messages, wrap
from dstreams.protocol.problems import InvalidJson

blanks = st.text(" \t\n\r", max_size=3)
strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.sampled_from(["-0", "1e2", "1E+2", "1.50", "0.10e-1", "123456789012345678901234567890"]),
)
scalars = st.one_of(
    numbers,
    st.sampled_from(["true", "false", "null", '"\\u00e9\\/\\n"', '"\\ud83d\\ude00"', '"[{\\"\\\\"', '"]"']),
    strings.map(json.dumps),
    strings.map(lambda text: json.dumps(text, ensure_ascii=False)),
)


def _array(items: list[tuple[str, str, str]]) -> str:
    return "[" + ",".join(before + item + after for before, item, after in items) + "]"


def _object(items: list[tuple[str, str, str, str]]) -> str:
    return "{" + ",".join(f"{a}{json.dumps(key)}{b}:{item}{b}" for a, key, b, item in items) + "}"


def _nest(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(st.tuples(blanks, values, blanks), max_size=3).map(_array),
        # Few different keys, so that some are repeated.
        st.lists(st.tuples(blanks, st.sampled_from(["a", "b", '"{']), blanks, values), max_size=3).map(_object),
    )


documents = st.recursive(scalars, _nest, max_leaves=12)


def _messages(stored: bytes, ends: tuple[int, ...]) -> list[bytes]:
    """Cut stored bytes at the ends, and take the comma off each message."""
    messages = []
    start = 0
    for end in ends:
        assert stored[end - 1 : end] == b","
        messages.append(stored[start : end - 1])
        start = end
    assert start == len(stored)
    return messages


class SplitTests:
    """From a request body to messages."""

    @pytest.mark.parametrize(
        ("body", "messages"),
        [
            (b'{"a":1}', [b'{"a":1}']),
            (b' {"a": 1}\r\n', [b'{"a": 1}']),
            (b'{"a":1}\n', [b'{"a":1}']),
            (b'[{"a":1},{"b":2}]', [b'{"a":1}', b'{"b":2}']),
            (b"[[1,2], [3,4]]", [b"[1,2]", b"[3,4]"]),
            (b"[[[1,2,3]]]", [b"[[1,2,3]]"]),
            (b" [ 1 ,\t2\n] ", [b"1", b"2"]),
            (b"[[]]", [b"[]"]),
            (b"[]", []),
            (b" [ ] ", []),
            (b"1", [b"1"]),
            (b'"a,b"', [b'"a,b"']),
            (b"null", [b"null"]),
            (b"[null]", [b"null"]),
            (b'{"b":1,"a":2,"b":3}', [b'{"b":1,"a":2,"b":3}']),
            (b"[1e2,-0,1.0]", [b"1e2", b"-0", b"1.0"]),
            (b"[123456789012345678901234567890]", [b"123456789012345678901234567890"]),
            (b'["\\u0041\\/"]', [b'"\\u0041\\/"']),
            (b'[{"a" :\n 1}]', [b'{"a" :\n 1}']),
            ('["é"]'.encode(), ['"é"'.encode()]),
        ],
    )
    def test_opens_one_level_and_keeps_raw_bytes(self, body: bytes, messages: list[bytes]) -> None:
        """Elements of a top-level array are messages; their bytes are exactly the client's."""
        assert _messages(*split_messages(body)) == messages

    def test_stored_form(self) -> None:
        """Every message is followed by a comma, and its end is counted after it."""
        assert split_messages(b"[1, 22]") == (b"1,22,", (2, 5))
        assert split_messages(b" {} ") == (b"{},", (3,))
        assert split_messages(b"[]") == (b"", ())

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b" ",
            b"{ invalid json }",
            b"{",
            b"[1,]",
            b"[1 2]",
            b"[1]x",
            b"{} {}",
            b"NaN",
            b"[NaN]",
            b"[Infinity]",
            b"[01]",
            b"[1.]",
            b"[.5]",
            b"[+1]",
            b"1e999",
            b"[1e999]",
            b"'a'",
            b'["\x01"]',
            b'["\\x41"]',
            b'["\xff"]',
            b'"\xff"',
            b'{"a":"\xed\xa0\x80"}',
            b'["\\ud800"]',
            b"\xef\xbb\xbf[]",
            b"[1]\x00",
            b"\x0c[1]",
            b"// x\n[1]",
            "[1]".encode("utf-16"),
        ],
    )
    def test_refuses_what_is_not_json(self, body: bytes) -> None:
        """Everything but one JSON value in strict UTF-8 is refused, inside arrays and outside."""
        with pytest.raises(InvalidJson, match=r"\(at byte \d+"):
            split_messages(body)

    def test_refusal_says_where(self) -> None:
        """The detail gives the byte in the body as sent, and the message."""
        with pytest.raises(InvalidJson, match=r"expected a JSON value \(at byte 6 in message 2\)"):
            split_messages(b"\n[1,\n x]")

    @given(st.lists(st.tuples(blanks, documents, blanks)), blanks, blanks)
    def test_elements_keep_their_bytes(self, items: list[tuple[str, str, str]], before: str, after: str) -> None:
        """Each element of any array comes out as the bytes it was written with, less the blanks around it."""
        body = (before + _array(items) + after).encode()
        assert _messages(*split_messages(body)) == [item.encode() for _, item, _ in items]

    @given(documents.filter(lambda text: not text.startswith("[")), blanks, blanks)
    def test_a_single_value_keeps_its_bytes(self, document: str, before: str, after: str) -> None:
        """A value that isn't an array is one message of exactly its own bytes."""
        assert _messages(*split_messages((before + document + after).encode())) == [document.encode()]

    @given(st.one_of(st.binary(), st.text('[]{}",:\\ 01eE.-truefalsn\n').map(str.encode)))
    def test_any_bytes_give_messages_or_a_refusal(self, body: bytes) -> None:
        """Nothing but InvalidJson is raised, and what is taken is what orjson takes."""
        try:
            stored, ends = split_messages(body)
        except InvalidJson:
            with pytest.raises(orjson.JSONDecodeError):
                orjson.loads(body)
            return
        for message in _messages(stored, ends):
            orjson.loads(message)


class WrapTests:
    """From messages to what readers get."""

    def test_empty(self) -> None:
        """No message is an empty array."""
        assert wrap(b"") == b"[]"

    @given(documents, blanks)
    @example("[]", "")
    def test_reads_what_was_written(self, document: str, blank: str) -> None:
        """The array that readers get has the values of the array that was appended, or of the single one."""
        value = orjson.loads(document)
        stored, _ = split_messages((blank + document + blank).encode())
        assert orjson.loads(wrap(stored)) == (value if isinstance(value, list) else [value])

    @given(st.lists(st.lists(documents, max_size=3)), st.data())
    def test_any_run_of_messages_is_an_array(self, appends: list[list[str]], data: st.DataObject) -> None:
        """Stored bytes between any two message ends wrap to exactly those messages, across appends."""
        stored, ends, values = b"", [0], []
        for elements in appends:
            more, relative = split_messages(("[" + ",".join(elements) + "]").encode())
            ends += [len(stored) + end for end in relative]
            stored += more
            values += [orjson.loads(element) for element in elements]
        first = data.draw(st.integers(0, len(values)))
        last = data.draw(st.integers(first, len(values)))
        assert orjson.loads(wrap(stored[ends[first] : ends[last]])) == values[first:last]


def _arrays(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def _objects(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


def _mixed(depth: int) -> bytes:
    inner = b"1"
    for level in range(depth):
        inner = b"[%b,2]" % inner if level % 2 else b'{"[[[":%b}' % inner
    return inner


def _beside_strings(depth: int) -> bytes:
    """Nested arrays between strings full of brackets, quotes and backslashes."""
    noise = b'"' + rb"[[[{{{\\\"]\\" + b'"'
    return noise.join([b"[" * 1, b"," + b"[" * (depth - 1), b"]" * (depth - 1) + b",", b"]"])


class DepthTests:
    """How deeply a body may be nested."""

    @pytest.mark.parametrize("nest", [_arrays, _objects, _mixed, _beside_strings])
    def test_limit_is_exact(self, nest: Callable[[int], bytes]) -> None:
        """The stated depth is taken in every form, and one level more is refused."""
        split_messages(nest(MAX_DEPTH))
        with pytest.raises(InvalidJson, match="at most 512 levels"):
            split_messages(nest(MAX_DEPTH + 1))

    @pytest.mark.parametrize("depth", [1023, 1024, 1025, 5000, 100_000])
    @pytest.mark.parametrize("nest", [_arrays, _objects])
    def test_far_beyond_is_refused_alike(self, nest: Callable[[int], bytes], depth: int) -> None:
        """Depths where either parser gives up by itself are InvalidJson too."""
        with pytest.raises(InvalidJson):
            split_messages(nest(depth))

    def test_brackets_in_strings_do_not_count(self) -> None:
        """Text that looks like nesting, escaped quotes and backslashes included, is only text."""
        text = rb'"\\\"' + b"[{" * 2000 + rb'\"\\"'
        for body in (b"[%b]" % text, text, b'{"a":%b,%b:1}' % (text, text), b"[%b,%b]" % (text, b"[]")):
            split_messages(body)

    def test_many_flat_messages_are_not_deep(self) -> None:
        """A large batch of small messages is taken, however many brackets it has."""
        stored, ends = split_messages(b"[" + b",".join([b'{"a":[1,{}]}'] * 2000) + b"]")
        assert len(ends) == 2000
        assert stored == b'{"a":[1,{}]},' * 2000

    @given(documents)
    def test_depth_of_any_document(self, document: str) -> None:
        """Wrapping any document into arrays reaches the limit exactly when the depths add up to it."""

        def depth(value: object) -> int:
            if isinstance(value, dict):
                value = list(value.values())
            return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0

        # Duplicate keys hide values from the parser, so measure with all pairs kept.
        room = MAX_DEPTH - depth(json.loads(document, object_pairs_hook=lambda p: [v for _, v in p]))
        split_messages(b"[" * room + document.encode() + b"]" * room)
        with pytest.raises(InvalidJson, match="at most 512 levels"):
            split_messages(b"[" * (room + 1) + document.encode() + b"]" * (room + 1))

    def test_deep_call_stack_is_no_crash(self) -> None:
        """Called where Python leaves too little stack, a body is split or refused, nothing else."""

        def descend(levels: int) -> tuple[bytes, tuple[int, ...]]:
            return split_messages(_arrays(MAX_DEPTH)) if levels == 0 else descend(levels - 1)

        try:
            split = descend(sys.getrecursionlimit() - 300)
        except InvalidJson:
            return
        assert _messages(*split) == [_arrays(MAX_DEPTH - 1)]
