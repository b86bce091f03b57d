"""Logs the server's version and the warnings about its configuration at startup."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from twisted import __version__ as twisted_version
from twisted.application.service import Service
from twisted.logger import Logger

from dstreams import __version__

_log = Logger()


class ConfigService(Service):
    """Logs which program runs, and what the operator should know about its configuration.

    :param warnings: warnings about the configuration, one line each.
    """

    name: str | None = "config"

    def __init__(self, reactor: object, warnings: Sequence[str]) -> None:
        self._reactor = reactor
        self._warnings = warnings

    def startService(self) -> None:
        """Log the version and the configuration's warnings."""
        super().startService()
        _log.info(
            "dstreams {version} on Twisted {twisted} ({reactor}), {python} {python_version}",
            version=__version__,
            twisted=twisted_version,
            reactor=type(self._reactor).__name__,
            python=platform.python_implementation(),
            python_version=platform.python_version(),
        )
        for warning in self._warnings:
            _log.warn("{warning}", warning=warning)
