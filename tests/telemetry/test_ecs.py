"""Events as lines of JSON."""

from __future__ import annotations

import json
import os
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, Logger, LogLevel
from twisted.python.failure import Failure

from dstreams.telemetry.ecs import EcsFormat
from dstreams.telemetry.fields import REQUESTS, to_json

WALL = 1_800_000_000.25


def ecs(event: LogEvent) -> dict[str, object]:
    """The members of an event's line."""
    line = EcsFormat("1.2.3", lambda: 42)(event)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    members = json.loads(line)
    assert isinstance(members, dict)
    return members


def logged(format_: str, /, namespace: str = "dstreams.storage.files.store", **members: object) -> LogEvent:
    """What a logger makes of a message."""
    events: list[LogEvent] = []
    Logger(namespace, observer=events.append).warn(format_, **members)
    return events[0] | {"log_time": WALL}


class EcsTests:
    """What is in a line."""

    def test_members(self) -> None:
        """Time, level, message, who speaks, and what the message mentions."""
        assert ecs(logged("opened {path} in {seconds} s", path="/data", seconds=1.5)) == {
            "@timestamp": "2027-01-15T08:00:00.250000Z",
            "log.level": "warn",
            "message": "opened /data in 1.5 s",
            "ecs.version": "8.11.0",
            "service.name": "durable-streams",
            "service.version": "1.2.3",
            "process.pid": 42,
            "log.logger": "dstreams.storage.files.store",
            "labels.path": "/data",
            "labels.seconds": "1.5",
        }

    def test_own_fields(self) -> None:
        """Members whose names have a dot stay what they are."""
        assert ecs(logged("x", **{"ds.stream_id": "a/b", "event.duration": 5}))["ds.stream_id"] == "a/b"
        assert ecs(logged("x", **{"event.duration": 5}))["event.duration"] == 5

    def test_labels_only_of_ours(self) -> None:
        """What others' events hold besides their text isn't ours to name."""
        assert not [name for name in ecs(logged("{a}", "twisted.web", a=1)) if name.startswith("labels.")]
        assert not [name for name in ecs(logged("{a}", "dstreamsish", a=1)) if name.startswith("labels.")]

    def test_failure(self) -> None:
        """A failure is its type, its text and its traceback."""
        events: list[LogEvent] = []
        try:
            os.stat("/nowhere/at/all")
        except OSError:
            Logger("dstreams.storage", observer=events.append).failure("looking failed", Failure())
        members = ecs(events[0])
        assert members["log.level"] == "critical"
        assert members["message"] == "looking failed"
        assert members["error.type"] == "builtins.FileNotFoundError"
        assert members["error.message"] == "[Errno 2] No such file or directory: '/nowhere/at/all'"
        assert "test_failure" in str(members["error.stack_trace"])

    def test_bare_event(self) -> None:
        """An event with nothing in it is a line too."""
        members = ecs({})
        assert members["log.level"] == "info"
        assert members["log.logger"] == ""
        assert datetime.fromisoformat(str(members["@timestamp"])).tzinfo is not None

    @pytest.mark.parametrize(
        "value", ["\ud800", 1 << 70, -(1 << 70), b"bytes", float("nan"), "\n\x1b[31m", "ä", "\x00", True, None]
    )
    def test_any_value(self, value: object) -> None:
        """No value breaks a line."""
        ecs(logged("x {value!r}", value=value))
        ecs(logged("x", **{"url.path": value}))
        ecs({"log_namespace": REQUESTS, **request_event({"url.path": value})})

    @given(st.text(), st.dictionaries(st.text(min_size=1), st.text()))
    def test_any_text(self, message: str, fields: dict[str, str]) -> None:
        """No text breaks a line, and its fields can be read back."""
        event = logged("{message}", message=message)
        dotted = {f"x.{name}": value for name, value in fields.items()}
        members = ecs(event | dotted)
        for name, value in dotted.items():
            assert members[name] == value
        assert message in str(members["message"])

    def test_obeyed_characters(self) -> None:
        """What a terminal or a reader of lines might obey is escaped; other letters stand as they are."""
        members = {"a": "\x80\x9b31m\x85\u2028\u2029\u202e\u2069\u200f", "b": "Grüße \u00a0\u2027\u202f\u2065 日本"}
        line = to_json(members)
        assert (
            line
            == b'{"a":"\\u0080\\u009b31m\\u0085\\u2028\\u2029\\u202e\\u2069\\u200f","b":"%b"}' % members["b"].encode()
        )
        assert json.loads(line) == members


def request_event(fields: dict[str, object], moment: float = WALL) -> LogEvent:
    return {
        "log_level": LogLevel.info,
        "log_namespace": REQUESTS,
        "log_time": moment,
        "log_format": "request completed",
        "log_fields": fields,
    }


class RequestLineTests:
    """Requests' lines are made in another way, and are the same."""

    def test_like_any_other(self) -> None:
        """The line of a request has the members that any other line has, and its fields."""
        fields: dict[str, object] = {"http.request.method": "GET", "event.duration": 5}
        expected = ecs(request_event(fields) | {"log_namespace": "other"})
        assert ecs(request_event(fields)) == expected | {"log.logger": REQUESTS}

    def test_times(self) -> None:
        """Each line has its own time, though a second's text is made once."""
        form = EcsFormat("1")
        moments = [WALL, WALL + 0.5, WALL + 1, WALL]
        stamps = [json.loads(form(request_event({"a.b": 1}, moment)))["@timestamp"][-10:] for moment in moments]
        assert stamps == ["00.250000Z", "00.750000Z", "01.250000Z", "00.250000Z"]

    def test_process(self) -> None:
        """A process that has become a daemon, and has said something since, tells its own number."""
        pids = [1, 1, 2, 2]
        form = EcsFormat("1", lambda: pids.pop(0))
        form(logged("starting"))
        assert b'"process.pid":1' in form(request_event({"a.b": 1}))
        form(logged("listening"))
        assert b'"process.pid":2' in form(request_event({"a.b": 1}))
        assert b'"process.pid":2' in form(request_event({"a.b": 1}))
