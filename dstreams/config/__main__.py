"""``python -m dstreams.config reference|default``: print the reference page or the file ``default.toml``."""

from __future__ import annotations

import sys

from dstreams.config.reference import default_file, reference

PAGES = {"reference": reference, "default": default_file}


def main(arguments: list[str]) -> None:
    """Print the named page."""
    if len(arguments) != 1 or arguments[0] not in PAGES:
        raise SystemExit(f"usage: python -m dstreams.config {'|'.join(PAGES)}")
    sys.stdout.write(PAGES[arguments[0]]())


if __name__ == "__main__":
    main(sys.argv[1:])
