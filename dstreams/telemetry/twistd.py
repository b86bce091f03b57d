"""The log as ``twistd``'s options and our configuration ask for it.

``twistd`` decides where the log goes: ``--logfile``, ``--syslog``, ``--logger``, stdout with ``-n``, else
``twistd.log``. It would also choose the form, but it takes an observer from the application instead, if there is one:
so ours goes to the same places. ``--logger`` names an observer of the operator's own; twistd prefers that one to ours.
"""

from __future__ import annotations

import atexit
import io
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
from dstreams.telemetry.lines import LineWriter, Output, Syslog, Unbuffered
from dstreams.telemetry.logs import LevelFilter, LogObserver, text_line

DEFAULT_FILE = "twistd.log"
"""Where a daemon logs unless told otherwise."""


@frozen
class Destination:
    """Where lines go.

    :param for_people: whether ``auto`` means text: a terminal, and syslog, which expects one line of text.
    :param dated: whether a line needs its time.
    :param rotate: begins a new file; ``None`` where there is no file.
    """

    output: Output
    for_people: bool
    dated: bool = True
    rotate: Callable[[], object] | None = None


def build_observer(
    twistd_options: Mapping[str, Any], log_format: str, log_filter: LogFilter, version: str, reactor: Any
) -> LogObserver:
    """The observer that writes this process's log; call it once, before twistd starts logging.

    A thread writes the lines: of a daemon as soon as the reactor runs, since twistd forks before that.

    :param twistd_options: ``twistd``'s own options.
    :param log_format: ``observability.log_format``.
    :param log_filter: which events are logged.
    :param version: the server's version.
    :raise OSError: when the log file can't be opened.
    """
    found = destination(twistd_options)
    form: Callable[[LogEvent], bytes] = EcsFormat(version)
    if log_format == "text" or (log_format == "auto" and found.for_people):
        form = partial(text_line, timestamp=found.dated)
    writer = LineWriter(found.output, reactor.callLater, lambda lost: form(_lost(lost)))
    if twistd_options.get("nodaemon"):
        writer.start()
    else:
        reactor.callWhenRunning(writer.start)
    if found.rotate is not None:
        _rotate_at_signal(partial(reactor.callFromThread, writer.call, found.rotate))

    def call_later(seconds: float, function: Callable[[], object]) -> None:
        reactor.callFromThread(partial(reactor.callLater, seconds, function))

    observer = LogObserver(LevelFilter(log_filter), form, writer, call_later)
    atexit.register(observer.flush)
    # Once more, to be called before what a server that can't start registers: that ends the process.
    reactor.addSystemEventTrigger("after", "shutdown", atexit.register, observer.flush)
    return observer


def _lost(lost: int) -> LogEvent:
    return {
        "log_level": LogLevel.error,
        "log_namespace": "dstreams.telemetry",
        "log_time": time.time(),
        "log_format": "{lost} log lines before this one could not be written",
        "lost": lost,
    }


def destination(twistd_options: Mapping[str, Any]) -> Destination:
    """Where ``twistd`` would log."""
    if twistd_options.get("syslog"):
        return Destination(Syslog(twistd_options.get("prefix") or "twisted"), for_people=True, dated=False)
    name, foreground = twistd_options.get("logfile"), bool(twistd_options.get("nodaemon"))
    if name == "-" or (foreground and not name):
        if not foreground:
            sys.exit("a daemon can't log to stdout; leave --logfile=- out, or add -n")
        # Not a reference to sys.stdout when a line is written: that leads back into the log by then.
        stdout: Any = sys.stdout
        buffer = getattr(stdout, "buffer", stdout)
        raw = getattr(buffer, "raw", buffer)  # with python -u there is no buffer
        if isinstance(raw, io.RawIOBase):
            stdout.flush()
            return Destination(Unbuffered(raw), for_people=stdout.isatty())
        return Destination(buffer, for_people=stdout.isatty())
    # Like twistd's, it is rotated when it is large, and at SIGUSR1.
    file: LogFile = LogFile.fromFullPath(os.path.abspath(name or DEFAULT_FILE))
    return Destination(file, for_people=False, rotate=file.rotate)


def _rotate_at_signal(rotate: Callable[[], object]) -> None:
    # In a thread that isn't the main one no signal can be caught, and there it wasn't twistd that started us.
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda _number, _frame: rotate())
