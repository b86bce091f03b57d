"""The service tree: what runs, in which order it starts and stops, and what happens when it can't start.

Read :mod:`dstreams.services.assembly` first: it says which services there are.
"""

from dstreams.services.assembly import build_server
from dstreams.services.parts import Reactor
from dstreams.services.tree import ServerService

__all__ = ["Reactor", "ServerService", "build_server"]
