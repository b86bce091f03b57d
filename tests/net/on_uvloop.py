"""A plugin for pytest: ``-p tests.net.on_uvloop --reactor=asyncio`` runs tests on the reactor on uvloop.

To pytest-twisted it is an asyncio reactor, and installed before it looks.
"""

from __future__ import annotations

from dstreams.net.reactor import install

install()
