"""Large JSON bodies in slices: the same messages and refusals as in one go, whatever the window."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.protocol.json_mode import MAX_DEPTH, split_messages
from dstreams.protocol.json_slices import JsonSlices, Messages
from dstreams.protocol.problems import InvalidJson

WINDOWS = st.sampled_from([24, 25, 31, 48, 64, 100, 1000])
"""Escapes of up to 12 bytes have to fit into a window."""

BLANKS = st.sampled_from(["", "", "", " ", "\n  ", "\t" * 7, " " * 60])
CHARACTERS = st.sampled_from(
    [
        "a",
        "b c",
        '\\"',
        "\\\\",
        ",",
        "[",
        "}",
        ":",
        "é",
        "😀",
        "\\u00e9",
        "\\ud83d\\ude00",
        "\\n",
        '\\\\\\"',
        "},{",
        '\\",\\"',
    ]
)
STRINGS = st.lists(CHARACTERS, max_size=12).map(lambda parts: f'"{"".join(parts)}"')
SCALARS = st.sampled_from(["1", "-0.5e3", "true", "false", "null", "12345678901234567890", "0"]) | STRINGS


def _joined(parts: list[str], blanks: str) -> str:
    return (blanks + "," + blanks).join(parts)


def _containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arrays = st.builds(
        lambda items, blanks: f"[{blanks}{_joined(items, blanks)}{blanks}]", st.lists(inner, max_size=4), BLANKS
    )
    members = st.builds(lambda key, blanks, value: f"{key}{blanks}:{blanks}{value}", STRINGS, BLANKS, inner)
    objects = st.builds(
        lambda items, blanks: f"{{{blanks}{_joined(items, blanks)}{blanks}}}", st.lists(members, max_size=4), BLANKS
    )
    return arrays | objects


VALUES = st.recursive(SCALARS, _containers, max_leaves=30)
BODIES = st.builds(
    lambda items, blanks: f"{blanks}[{blanks}{_joined(items, blanks)}{blanks}]{blanks}",
    st.lists(VALUES, max_size=12),
    BLANKS,
)
BODIES |= VALUES


def split(body: bytes, window: int) -> tuple[bytes, tuple[int, ...]]:
    slices = JsonSlices(body, window)
    for _ in slices.steps():
        pass
    messages = slices.messages()
    assert list(messages.lengths) == [
        end - begin for begin, end in zip([0, *messages.ends], messages.ends, strict=False)
    ]
    return messages.data, tuple(messages.ends)


def outcome(function: object, *arguments: object) -> object:
    """The result, or ``None`` for a refusal."""
    try:
        return function(*arguments)  # type: ignore[operator]
    except InvalidJson:
        return None


class SameAsInOneGoTests:
    @given(BODIES, WINDOWS)
    def test_valid_bodies(self, body: str, window: int) -> None:
        """Every valid body has the same messages, byte for byte."""
        assert split(body.encode(), window) == split_messages(body.encode())

    @given(BODIES, WINDOWS, st.data())
    def test_broken_bodies(self, body: str, window: int, data: st.DataObject) -> None:
        """A body with a few bytes removed, changed or added is accepted exactly if it is accepted in one go."""
        raw = bytearray(body.encode())
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, max(0, len(raw) - 1)))
            size = data.draw(st.integers(0, 3))
            raw[place : place + size] = data.draw(
                st.sampled_from(
                    [
                        b"",
                        b"[",
                        b"]",
                        b"{",
                        b"}",
                        b",",
                        b":",
                        b'"',
                        b"\\",
                        b" " * 50,
                        b"1",
                        b"-",
                        b".",
                        b"e8",
                        b"\xff",
                        b"\xc3",
                        b"\x00",
                    ]
                )
            )
        assert outcome(split, bytes(raw), window) == outcome(split_messages, bytes(raw))

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b" ",
            b"[",
            b"]",
            b"[]",
            b"[,]",
            b"[,1]",
            b"[1,]",
            b"[1 2]",
            b"{,}",
            b'{"a":}',
            b'{"a"}',
            b'{"a":1,}',
            b'{"a" 1}',
            b"[1],",
            b"[1],2",
            b"[1]]",
            b"{}}",
            b"{} {}",
            b"1,",
            b'"a"b',
            b'"\\ud800"',
            b'"\\udc00"',
            b'["\\ud83d',
            b"[1e400]",
            b"\xef\xbb\xbf[]",
            b'["\xff"]',
            b"nul",
            b"[tru" + b"e" * 100 + b"]",
            b"[{]",
            b"[}",
            b'["a\n"]',
            b"[" * 600 + b"]" * 600,
            b"[" + b" " * 200 + b"," + b"1]",
            b"[1" + b" " * 200 + b"2]",
            b'{"a"' + b" " * 200 + b"1}",
            b'{"a":' + b" " * 200 + b"}",
            b'[{"' + b"k" * 100 + b'"]',
            b'{"' + b"k" * 100 + b'":"' + b"v" * 100 + b'"',
            b'["' + b"\\u00" * 50 + b'"]',
        ],
    )
    @pytest.mark.parametrize("window", [24, 40, 1000])
    def test_bodies_with_mistakes(self, body: bytes, window: int) -> None:
        """Known mistakes are found in every window."""
        assert outcome(split, body, window) == outcome(split_messages, body)

    @pytest.mark.parametrize(
        "pattern",
        [
            "[]BeBBB",
            "[1]B.5BBB",
            '["LLLL",{"a":-B1}]',
            '[{"a":["LB.5B"]}]',
            '[{"a":["L"B.5B]}]',
            '[{"a":{"b":-B}}]',
            '{"a":-BBBBtrue}',
            "[1BE5]",
            "[0Bx]",
        ],
    )
    @pytest.mark.parametrize("window", [24, 40, 64 * 1024])
    def test_number_in_two_pieces(self, pattern: str, window: int) -> None:
        """Blanks inside a number aren't swallowed with the text that a group leaves out."""
        body = pattern.replace("B", " " * 20_000).replace("L", "x" * 20_000).encode()
        assert outcome(split, body, window) == outcome(split_messages, body)

    @pytest.mark.parametrize("window", [24, 100])
    def test_long_tokens(self, window: int) -> None:
        """Strings, keys, escapes and white space that are longer than a window."""
        long = 'é😀\\u00e9\\ud83d\\ude00\\\\\\"' * 30
        blank = " \n" * 100
        item = f'{{"{long}"{blank}:{blank}"{long}"{blank},"k":[{blank}"{long}"]}}'
        body = f'[{blank}"{long}"{blank},{blank}{item}{blank},7{blank}]'
        assert split(body.encode(), window) == split_messages(body.encode())

    def test_a_number_is_not_longer_than_a_window(self) -> None:
        """The one thing that can't be cut is refused, with its place."""
        with pytest.raises(InvalidJson, match=r"longer than 24 bytes \(at byte 4\)"):
            split(b"[1, " + b"1" * 100 + b"]", 24)

    def test_depth(self) -> None:
        """The limit is the same, wherever windows end."""
        for depth in (MAX_DEPTH, MAX_DEPTH + 1):
            for body in (b"[" * depth + b"]" * depth, b'{"k":' * depth + b"1" + b"}" * depth):
                for window in (24, 100, 10_000):
                    assert (outcome(split, body, window) is None) == (depth > MAX_DEPTH)


class ErrorTests:
    @pytest.mark.parametrize("window", [24, 64, 10_000])
    def test_the_place_and_the_message_are_named(self, window: int) -> None:
        """The detail says what is wrong, at which byte, and in which message, whatever comes before."""
        before = b'[{"a":[1,2]}, "' + "é".encode() * 40 + b'", '
        with pytest.raises(InvalidJson, match=rf"range of a double, .* \(at byte {len(before)} in message 3\)"):
            split(before + b"1e400, 2]", window)
        with pytest.raises(InvalidJson, match=r"half of a surrogate pair; .* in message 3\)"):
            split(before + b'"\\ud800"]', window)
        with pytest.raises(InvalidJson, match=rf"not UTF-8 \(at byte {len(before) + 1} in message 3\)"):
            split(before + b'"\xff"]', window)


class FairTests:
    @pytest.mark.parametrize(
        "body",
        [
            b"[" + b"1," * 400_000 + b"1]",
            b"[" + b"[]," * 300_000 + b"[]]",
            b"[" + b'"",' * 300_000 + b'""]',
            b"[" + (b"[" * 500 + b"]" * 500 + b",") * 900 + b"1]",
            b"{" + b",".join(b'"k%d":1' % number for number in range(100_000)) + b"}",
            b'[{"k":"' + b"a\\n" * 300_000 + b'"}]',
            b"[1" + b" " * 900_000 + b",2]",
            (b"[" + b"1," * 3_000) * 300 + b"1" + b"]" * 300,
            b'[{"' + b'},{\\"' * 150_000 + b'":1}]',
        ],
        ids=["numbers", "arrays", "strings", "nested", "members", "escapes", "blanks", "chain", "guesses"],
    )
    def test_no_step_is_long(self, body: bytes) -> None:
        """No step takes more than 15 ms of processor time: with a slice of 5 ms, a turn stays below 25 ms."""
        slices, longest = JsonSlices(body), 0.0
        steps = slices.steps()
        while True:
            before = time.thread_time()
            if next(steps, self) is self:
                break
            longest = max(longest, time.thread_time() - before)
        messages: Messages = slices.messages()
        assert longest < 0.015
        assert (messages.data, tuple(messages.ends)) == split_messages(body)
