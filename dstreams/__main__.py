"""``python -m dstreams ARGUMENTS``: the same as ``twistd --pidfile= -n durable-streams ARGUMENTS``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the server in the foreground, and return when it has stopped."""
    # Imported here, because tools that only inspect packages also import this module.
    from twisted.scripts.twistd import run

    sys.argv[:] = ["twistd", "--pidfile=", "-n", "durable-streams", *sys.argv[1:]]
    run()


if __name__ == "__main__":
    main()
