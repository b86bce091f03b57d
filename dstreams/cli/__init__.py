"""``durable-streams``: the command line for operators.

Each command is a module with a function ``add(commands)``. It adds the command's parser and sets ``run`` on it to a
function from the parsed options to the exit status. No module here may install a reactor when it is imported.
"""

from dstreams.cli.main import main

__all__ = ["main"]
