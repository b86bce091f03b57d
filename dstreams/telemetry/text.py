"""Formats log events as text lines: time, namespace and level, the message, then the fields as ``name=value``."""

from __future__ import annotations

import json
import re

from twisted.logger import LogEvent, eventAsText, formatTime

from dstreams.config.problems import printable, printable_lines
from dstreams.telemetry.fields import REQUESTS, structured

_BARE = re.compile(r"[!#-<>-\[\]-~]+")
"""Text that needs no quotes: printable ASCII without space, quote, ``=`` and backslash."""


def text_line(event: LogEvent, *, timestamp: bool = True) -> bytes:
    """Format one event; only a traceback takes more than one line.

    :param timestamp: whether the line begins with the time; false if the log's destination, such as syslog, adds it.
    """
    if event.get("log_namespace") == REQUESTS:
        text = event["log_format"]
    else:
        text = printable_lines(eventAsText(event, includeTimestamp=False, includeSystem=False))
    level = event.get("log_level")
    source = f"[{event.get('log_namespace') or '-'}#{'info' if level is None else level.name}] "
    begin = f"{formatTime(event.get('log_time'))} {source}" if timestamp else source
    text = text.rstrip("\n")  # a traceback ends with one
    pairs = "".join(f" {name}={_shown(value)}" for name, value in structured(event).items())
    return f"{begin}{text}{pairs}\n".encode("utf-8", "replace")


def _shown(value: object) -> str:
    """Format a value on one line, without characters that a terminal might interpret."""
    text = str(value)
    return text if _BARE.fullmatch(text) else printable(json.dumps(text))
