"""How much of what was written to a transport still waits in this process.

No interface of Twisted's tells that, so what it keeps for itself is looked at, with care: it is asked for when metrics
are, and a transport of an unknown kind has nothing to tell.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.protocols.policies import ProtocolWrapper


def unsent_bytes(transport: object) -> int:
    """The bytes, 0 when that is unknown. Below TLS they are counted encrypted."""
    if isinstance(transport, ProtocolWrapper):
        return unsent_bytes(transport.transport)
    if isinstance(transport, FileDescriptor):
        inside: Any = transport
        waiting: int = len(inside.dataBuffer) - inside.offset + getattr(inside, "_tempDataLen", 0)
        return waiting
    told = getattr(transport, "unsent_bytes", 0)
    return told if isinstance(told, int) else 0
