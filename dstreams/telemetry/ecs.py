"""A log event as one line of JSON, in the Elastic Common Schema's form for logs.

``docs/reference/logs.md`` lists the fields.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from attrs import define, field
from twisted.logger import LogEvent, formatEvent
from twisted.python.failure import Failure
from twisted.python.reflect import qual

from dstreams.telemetry.fields import REQUESTS, Fields, labels, structured, to_json

ECS_VERSION: Final = "8.11.0"
SERVICE_NAME: Final = "durable-streams"


@define(eq=False)
class EcsFormat:
    """Formats events.

    :param version: the server's version.
    :param pid: gives the process's number, which changes when it becomes a daemon.
    """

    _version: str
    _pid: Callable[[], int] = os.getpid
    # The last second and its text; one value, since several threads may log.
    _second: tuple[int, bytes] = field(default=(-1, b""), init=False)
    # What requests' lines have in common, by level and message.
    _common: dict[tuple[object, str], bytes] = field(factory=dict, init=False)

    def __call__(self, event: LogEvent) -> bytes:
        """One line, with its end."""
        namespace = event.get("log_namespace") or ""
        if namespace == REQUESTS:
            return self._request(event)
        # A daemon's first line comes before its first request.
        self._common.clear()
        level = event.get("log_level")
        members = self._members("info" if level is None else level.name, formatEvent(event), namespace)
        members["@timestamp"] = self._timestamp(event.get("log_time")).decode("ascii")
        members.update(structured(event))
        members.update(labels(event))
        failure = event.get("log_failure")
        if isinstance(failure, Failure):
            members.update(_of_failure(failure))
        return to_json(members) + b"\n"

    def _request(self, event: LogEvent) -> bytes:
        """The line of a request. Most of it is pasted together: 1.2 us, a third of what the others take."""
        level, message = event["log_level"], event["log_format"]
        common = self._common.get((level, message))
        if common is None:
            members = self._members(level.name, message, REQUESTS)
            del members["@timestamp"]
            common = self._common[level, message] = to_json(members)[1:-1]
        fields = event["log_fields"]
        own = fields.json if isinstance(fields, Fields) else to_json(fields)[1:-1]
        return b'{"@timestamp":"%b",%b,%b}\n' % (self._timestamp(event["log_time"]), common, own)

    def _members(self, level: str, message: str, namespace: str) -> dict[str, object]:
        """What every line has, in its order; the time is left open."""
        return {
            "@timestamp": "",
            "log.level": level,
            "message": message,
            "ecs.version": ECS_VERSION,
            "service.name": SERVICE_NAME,
            "service.version": self._version,
            "process.pid": self._pid(),
            "log.logger": namespace,
        }

    def _timestamp(self, moment: float | None) -> bytes:
        """RFC 3339 in UTC with microseconds. The part down to the second is made once a second."""
        if moment is None:
            moment = time.time()
        second = int(moment)
        known, text = self._second
        if second != known:
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode("ascii")
            self._second = second, text
        return b"%b.%06dZ" % (text, (moment - second) * 1e6)


def _of_failure(failure: Failure) -> dict[str, object]:
    kind = failure.type
    return {
        "error.type": "" if kind is None else qual(kind),
        "error.message": failure.getErrorMessage(),
        "error.stack_trace": failure.getTraceback(),
    }
