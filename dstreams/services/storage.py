"""Opens the storage before the port is bound, and closes it after everything else has stopped."""

from __future__ import annotations

import os
from typing import cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from dstreams.config import Config
from dstreams.runtime.progress import on_terminal
from dstreams.runtime.startup import StartupError, StartupPhase
from dstreams.services.notify import Notifier
from dstreams.services.parts import Engine
from dstreams.storage.interface import StorageError

_log = Logger()


class StorageService(Service):
    """Opens and closes the storage of the streams.

    :param notifier: reports the current step to the service manager, because opening a large store may take minutes.
    """

    name: str | None = "storage"

    def __init__(self, config: Config, engine: Engine, notifier: Notifier) -> None:
        self._config = config
        self._engine = engine
        self._notifier = notifier

    def startService(self) -> Deferred[None]:
        """Open the storage.

        :return: fires when all streams are loaded; fails with a ``StartupError``.
        """
        super().startService()
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        mode = self._config.storage.mode
        self._notifier.status(f"opening {mode} storage")
        try:
            await maybeDeferred(self._engine.open, on_terminal())
        except (StorageError, OSError) as error:
            cause = f"failed to open {mode} storage: {error}"
            raise StartupError(StartupPhase.START_SERVER, cause) from error
        _log.info("storage: {where}, {limits}", where=_storage_place(self._config), limits=_limits(self._config))

    def stopService(self) -> Deferred[None]:
        """Close the storage; fires when everything acknowledged has been stored."""
        super().stopService()
        self._notifier.status("closing the storage")
        return cast("Deferred[None]", maybeDeferred(self._engine.close))


def _storage_place(config: Config) -> str:
    """Return the storage mode and the directory of its files."""
    mode = config.storage.mode
    return mode if mode == "memory" else f"{mode} in {os.path.abspath(config.storage.data_dir)}"


def _limits(config: Config) -> str:
    limits = config.limits
    total = limits.max_memory_bytes if config.storage.mode == "memory" else limits.max_disk_bytes
    return f"up to {total or 'any number of'} bytes, {limits.max_stream_bytes} bytes per stream"
