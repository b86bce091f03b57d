"""Chooses the default reactor."""

from __future__ import annotations

import sys


def install_fastest() -> None:
    """Install the reactor on uvloop, unless a reactor is installed already or uvloop is missing."""
    if "twisted.internet.reactor" in sys.modules:
        return
    try:
        from dstreams.net import reactor
    except ImportError:
        return
    reactor.install()
