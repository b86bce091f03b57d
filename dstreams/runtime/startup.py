"""The startup phases of a server, and the error that names the phase in which startup failed."""

from __future__ import annotations

from enum import Enum


class StartupPhase(Enum):
    """A startup phase. The values appear in error messages, so operators can search for them."""

    LOAD_CONFIG = "load_config"
    VALIDATE_CONFIG = "validate_config"
    RESOLVE_TRANSPORT = "resolve_transport"
    CHECK_TLS_FILES = "check_tls_files"
    BUILD_TLS_CONTEXT = "build_tls_context"
    BIND_LISTENER = "bind_listener"
    START_SERVER = "start_server"


class StartupError(Exception):
    """The server cannot start.

    :param phase: the phase that failed.
    :param cause: one line for the operator: what is wrong and, if that is not obvious, what to do.
    """

    def __init__(self, phase: StartupPhase, cause: str) -> None:
        super().__init__(phase, cause)
        self.phase = phase
        self.cause = cause

    def __str__(self) -> str:
        """Return the line that the operator sees: ``[phase] cause``."""
        return f"[{self.phase.value}] {self.cause}"
