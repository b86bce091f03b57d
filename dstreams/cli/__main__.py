"""``python -m dstreams.cli ARGUMENTS``: the same as ``durable-streams ARGUMENTS``."""

import sys

from dstreams.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
