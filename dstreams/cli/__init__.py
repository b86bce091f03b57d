"""``durable-streams``: what an operator types.

A command is a module here with ``add(commands)``, which adds its parser and sets ``run`` on it: a function from
the parsed options to the exit status. Nothing here may install a reactor when it is imported.
"""

from dstreams.cli.main import main

__all__ = ["main"]
