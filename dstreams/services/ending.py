"""How a server that can't start ends its process."""

from __future__ import annotations

import atexit
import os
import sys

from dstreams.services.notify import Notifier
from dstreams.services.parts import Reactor
from dstreams.services.tree import OnFailure
from dstreams.startup import StartupError


def end_process(reactor: Reactor, notifier: Notifier) -> OnFailure:
    """What a server that can't start does: say why in one line on stderr, and exit with status 1.

    Not by SystemExit: in a daemon it would leave the process that waits for it hanging, from a callback it
    wouldn't end the reactor, and twistd would leave its pid file behind. The reactor stops as at any other
    time, and the status is set when the interpreter ends, because twistd itself always exits with 0.
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
