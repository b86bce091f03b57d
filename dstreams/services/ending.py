"""How the process ends if the server cannot start."""

from __future__ import annotations

import atexit
import os
import sys

from dstreams.runtime.startup import StartupError
from dstreams.services.notify import Notifier
from dstreams.services.parts import Reactor
from dstreams.services.tree import OnFailure


def end_process(reactor: Reactor, notifier: Notifier) -> OnFailure:
    """Return the function for a server that cannot start: it prints the error to stderr and exits with status 1.

    It does not use SystemExit: in a daemon that would leave the waiting parent process hanging, in a callback it would
    not stop the reactor, and twistd would not remove its pid file. So the reactor is stopped as usual, and the status
    is set at interpreter exit, because twistd itself always exits with 0.
    """

    def give_up(error: StartupError) -> None:
        if sys.__stderr__ is not None:
            sys.__stderr__.write(f"{error}\n")
            sys.__stderr__.flush()
        notifier.status(str(error))
        atexit.register(_exit_with_failure)
        reactor.callWhenRunning(reactor.stop)

    return give_up


def _exit_with_failure() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(1)
