"""The built-in profiles: named sets of values for a kind of deployment."""

from __future__ import annotations

from collections.abc import Mapping

from dstreams.config.keys import Value
from dstreams.config.problems import load_problem, shown
from dstreams.config.schema import KEYS
from dstreams.config.settings import Layer

PROFILES: Mapping[str, Mapping[str, Value]] = {
    "default": {},
    # One's own machine: nobody else gets in.
    "dev": {"server.bind_address": "127.0.0.1:4437"},
}


def read_profile(name: str | None) -> Layer:
    """The values of a profile.

    :param name: as the operator wrote it; blanks around it and upper case don't matter, and nothing at all
        means ``default``.
    """
    layer = Layer()
    wanted = (name or "").strip().lower() or "default"
    values = PROFILES.get(wanted)
    if values is None:
        layer.problems.append(
            load_problem(f"unknown profile {shown(name)} (--profile): this version has {', '.join(PROFILES)}")
        )
        return layer
    for path, value in values.items():
        layer.set(KEYS[path], value, f"profile {wanted}")
    return layer
