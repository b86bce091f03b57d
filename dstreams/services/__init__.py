"""The service tree: which services run, in which order they start and stop, and what happens if one cannot start.

Start reading at :mod:`dstreams.services.assembly`, which lists the services.
"""

from dstreams.services.assembly import build_server
from dstreams.services.parts import Reactor
from dstreams.services.tree import ServerService

__all__ = ["Reactor", "ServerService", "build_server"]
