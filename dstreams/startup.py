"""The phases a server goes through before it serves, and the error that says in which one it failed."""

from __future__ import annotations

from enum import Enum


class StartupPhase(Enum):
    """What was being done. The values are what an operator reads, and greps for, in an error line."""

    LOAD_CONFIG = "load_config"
    VALIDATE_CONFIG = "validate_config"
    RESOLVE_TRANSPORT = "resolve_transport"
    CHECK_TLS_FILES = "check_tls_files"
    BUILD_TLS_CONTEXT = "build_tls_context"
    BIND_LISTENER = "bind_listener"
    START_SERVER = "start_server"


class StartupError(Exception):
    """The server can't start.

    :param phase: what was being done.
    :param cause: one line for the operator: what is wrong and, where that isn't plain, what to do.
    """

    def __init__(self, phase: StartupPhase, cause: str) -> None:
        super().__init__(phase, cause)
        self.phase = phase
        self.cause = cause

    def __str__(self) -> str:
        """The line an operator sees: ``[phase] cause``."""
        return f"[{self.phase.value}] {self.cause}"
