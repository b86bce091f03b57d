"""Deployment profiles: named sets of values for a kind of deployment."""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import frozen

from dstreams.config.keys import Value
from dstreams.config.problems import shown
from dstreams.config.schema import KEYS
from dstreams.config.settings import Layer

_PROD: dict[str, Value] = {
    "limits.max_memory_bytes": 536_870_912,
    "limits.max_stream_bytes": 268_435_456,
    "storage.mode": "file-durable",
    "storage.data_dir": "/var/lib/durable-streams",
    "storage.acid_shard_count": 16,
}

_BOTH_VERSIONS = ("http1", "http2")

PROFILES: Mapping[str, Mapping[str, Value]] = {
    "default": {},
    # One's own machine: nobody else gets in.
    "dev": {"server.bind_address": "127.0.0.1:4437", "observability.rust_log": "debug"},
    "prod": _PROD,
    "prod-tls": {**_PROD, "transport.mode": "tls", "transport.http.versions": _BOTH_VERSIONS},
    "prod-mtls": {**_PROD, "transport.mode": "mtls", "transport.http.versions": _BOTH_VERSIONS},
}
"""What each built-in profile sets."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(?:\.[a-z0-9_-]+)*", re.ASCII)

_RESERVED = "local"
"""Its file is read with every profile."""


@frozen
class DeploymentProfile:
    """Which profile is in force.

    :param name: ``default``, another of :data:`PROFILES`, or one's own: the name of a file without ``.toml``.
    """

    name: str = "default"

    @property
    def built_in(self) -> bool:
        """Whether it sets something, or nothing, by itself."""
        return self.name in PROFILES

    @property
    def production(self) -> bool:
        """Whether it is held to what production asks for."""
        return self.name in ("prod", "prod-tls", "prod-mtls")

    @classmethod
    def parse(cls, text: str | None) -> DeploymentProfile:
        """Read a profile's name; blanks around it and upper case don't matter, nothing at all means ``default``.

        :raise ValueError: with the remedy, when no profile can have that name.
        """
        name = (text or "").strip().lower() or "default"
        if name == _RESERVED:
            raise ValueError("is the name of the file that is read with every profile; choose another")
        if not _NAME.fullmatch(name):
            raise ValueError(f"isn't a profile's name; write {', '.join(PROFILES)}, or letters, digits, - and _")
        return cls(name)

    def __str__(self) -> str:
        return self.name


def read_profile(profile: DeploymentProfile) -> Layer:
    """What a profile sets by itself; one's own sets nothing."""
    layer = Layer()
    for path, value in PROFILES.get(profile.name, {}).items():
        layer.set(KEYS[path], value, f"profile {profile}")
    return layer


def unknown_profile(name: str, origin: str, why: str) -> str:
    """A profile that can't be used: ``unknown profile 'x' (--profile): why``."""
    return f"unknown profile {shown(name)} ({origin}): {why}"
