"""Tells at the start which program runs, and how it is configured."""

from __future__ import annotations

import platform

from twisted import __version__ as twisted_version
from twisted.application.service import Service
from twisted.logger import Logger

from dstreams import __version__
from dstreams.config import Config, warnings

_log = Logger()


class ConfigService(Service):
    """Tells which program runs, and what an operator should know about its configuration."""

    name: str | None = "config"

    def __init__(self, config: Config, reactor: object) -> None:
        self._config = config
        self._reactor = reactor

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
        for warning in warnings(self._config):
            _log.warn("{warning}", warning=warning)
