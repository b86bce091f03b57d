"""The log as ``twistd``'s options and our configuration ask for it.

``twistd`` decides where the log goes: ``--logfile``, ``--syslog``, ``--logger``, stdout with ``-n``, else
``twistd.log``. It would also choose the form, but it takes an observer from the application instead, if there is one:
so ours goes to the same places. ``--logger`` names an observer of the operator's own; twistd prefers that one to ours.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from attrs import frozen
from twisted.logger import LogEvent, LogLevel
from twisted.python.logfile import LogFile

from dstreams.config import LogFilter
from dstreams.telemetry.ecs import EcsFormat
from dstreams.telemetry.levels import LevelFilter
from dstreams.telemetry.lines import LineWriter, Output, Syslog
from dstreams.telemetry.observer import LogObserver
from dstreams.telemetry.text import text_line

DEFAULT_FILE = "twistd.log"
"""Where a daemon logs unless told otherwise."""


@frozen
class Destination:
    """Where lines go.

    :param for_people: whether ``auto`` means text: a terminal, and syslog, which expects one line of text.
    :param dated: whether a line needs its time.
    """

    output: Output
    for_people: bool
    dated: bool = True


def build_observer(
    twistd_options: Mapping[str, Any], log_format: str, log_filter: LogFilter, version: str, reactor: Any
) -> LogObserver:
    """The observer that writes this process's log; call it once, before twistd starts logging.

    :param twistd_options: ``twistd``'s own options.
    :param log_format: ``observability.log_format``.
    :param log_filter: which events are logged.
    :param version: the server's version.
    :raise OSError: when the log file can't be opened.
    """
    found = destination(twistd_options, reactor)
    form: Callable[[LogEvent], bytes] = EcsFormat(version)
    if log_format == "text" or (log_format == "auto" and found.for_people):
        form = partial(text_line, timestamp=found.dated)
    writer = LineWriter(found.output, reactor.callLater, lambda lost: form(_lost(lost)))

    def call_later(seconds: float, function: Callable[[], object]) -> None:
        reactor.callFromThread(partial(reactor.callLater, seconds, function))

    observer = LogObserver(LevelFilter(log_filter), form, writer, call_later)
    atexit.register(observer.flush)
    return observer


def _lost(lost: int) -> LogEvent:
    return {
        "log_level": LogLevel.error,
        "log_namespace": "dstreams.telemetry",
        "log_time": time.time(),
        "log_format": "{lost} log lines before this one could not be written",
        "lost": lost,
    }


def destination(twistd_options: Mapping[str, Any], reactor: Any) -> Destination:
    """Where ``twistd`` would log."""
    if twistd_options.get("syslog"):
        return Destination(Syslog(twistd_options.get("prefix") or "twisted"), for_people=True, dated=False)
    name, foreground = twistd_options.get("logfile"), bool(twistd_options.get("nodaemon"))
    if name == "-" or (foreground and not name):
        if not foreground:
            sys.exit("a daemon can't log to stdout; leave --logfile=- out, or add -n")
        # Not a reference to sys.stdout when a line is written: that leads back into the log by then.
        stdout: Any = sys.stdout
        return Destination(getattr(stdout, "buffer", stdout), for_people=stdout.isatty())
    return Destination(_rotated(os.path.abspath(name or DEFAULT_FILE), reactor), for_people=False)


def _rotated(path: str, reactor: Any) -> LogFile:
    """A file that begins anew when it is large, as twistd's does, and when SIGUSR1 says so."""
    file: LogFile = LogFile.fromFullPath(path)
    # In a thread that isn't the main one no signal can be caught, and there it wasn't twistd that started us.
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda _number, _frame: reactor.callFromThread(file.rotate))
    return file
