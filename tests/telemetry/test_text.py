"""Events as lines for people."""

from __future__ import annotations

import re

import pytest
from twisted.logger import LogEvent, Logger, LogLevel
from twisted.python.failure import Failure

from dstreams.telemetry.fields import REQUESTS
from dstreams.telemetry.logs import text_line


def logged(format_: str, **members: object) -> LogEvent:
    events: list[LogEvent] = []
    Logger("dstreams.http", observer=events.append).info(format_, **members)
    return events[0]


class TextTests:
    """What a line looks like."""

    def test_message(self) -> None:
        """The time, who speaks and how seriously, the message."""
        line = text_line(logged("listening on {address}", address="127.0.0.1:1")).decode()
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[dstreams.http#info\] listening on 127.0.0.1:1\n", line
        )

    def test_without_time(self) -> None:
        """Where somebody else adds the time there is none."""
        assert text_line(logged("x"), timestamp=False) == b"[dstreams.http#info] x\n"

    def test_fields(self) -> None:
        """Fields follow as ``name=value``, in quotes where they need them."""
        fields = {"http.request.method": "GET", "event.duration": 5, "ds.stream_id": "a b", "url.query": 'x="1"'}
        event = {"log_level": LogLevel.info, "log_namespace": REQUESTS, "log_format": "request completed"}
        line = text_line(event | {"log_fields": fields}, timestamp=False)
        assert line == (
            b"[dstreams.requests#info] request completed http.request.method=GET event.duration=5"
            b' ds.stream_id="a b" url.query="x=\\"1\\""\n'
        )

    @pytest.mark.parametrize(
        "nasty", ["a\nb", "\x1b[2J", "\x9b31m", "a=b", "", "\ud800", "\u2028", "\\", "\x7f", "\u202ea"]
    )
    def test_one_line(self, nasty: str) -> None:
        """A client can't begin a line of its own, nor talk to the terminal."""
        line = text_line(logged("x", **{"ds.stream_id": nasty}), timestamp=False)
        assert line.startswith(b'[dstreams.http#info] x ds.stream_id="')
        assert re.fullmatch(rb"[ -~]+\n", line)

    @pytest.mark.parametrize("nasty", ["\x1b[2J", "\x9b31m", "\x7f", "\u202e", "\u200b", "\ud800", "\u2028", "\r"])
    def test_message_for_terminals(self, nasty: str) -> None:
        """Nor can what a message mentions; only the ends of a traceback's lines are taken as they are."""
        line = text_line(logged("it is {what}", what=f"a{nasty}b\n  c"), timestamp=False)
        assert re.fullmatch(rb"\[dstreams.http#info\] it is a\\[ -~]+b\n  c\n", line)

    def test_failure(self) -> None:
        """A failure's traceback follows its line."""
        events: list[LogEvent] = []
        try:
            int("one")
        except ValueError:
            Logger("dstreams", observer=events.append).failure("it failed", Failure())
        lines = text_line(events[0], timestamp=False).decode().splitlines()
        assert lines[0] == "[dstreams#critical] it failed"
        assert "builtins.ValueError: invalid literal" in lines[-1]
