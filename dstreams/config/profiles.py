"""Deployment profiles: named sets of configuration values."""

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
    # For one's own machine, so it listens on loopback only.
    "dev": {"server.bind_address": "127.0.0.1:4437", "observability.rust_log": "debug"},
    "prod": _PROD,
    "prod-tls": {**_PROD, "transport.mode": "tls", "transport.http.versions": _BOTH_VERSIONS},
    "prod-mtls": {**_PROD, "transport.mode": "mtls", "transport.http.versions": _BOTH_VERSIONS},
}
"""The values that each built-in profile sets."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(?:\.[a-z0-9_-]+)*", re.ASCII)

_RESERVED = "local"
"""Reserved, because ``local.toml`` is read with every profile."""


@frozen
class DeploymentProfile:
    """The name of the selected profile.

    :param name: one of :data:`PROFILES`, or a custom profile: the name of a file without ``.toml``.
    """

    name: str = "default"

    @property
    def built_in(self) -> bool:
        """Whether the profile is built in; ``default`` is, although it sets nothing."""
        return self.name in PROFILES

    @property
    def production(self) -> bool:
        """Whether the stricter checks for production apply."""
        return self.name in ("prod", "prod-tls", "prod-mtls")

    @classmethod
    def parse(cls, text: str | None) -> DeploymentProfile:
        """Parse a profile's name. Case and surrounding spaces do not matter; no name means ``default``.

        :raise ValueError: if no profile can have that name; the message says what to write.
        """
        name = (text or "").strip().lower() or "default"
        if name == _RESERVED:
            raise ValueError("is reserved, because local.toml is read with every profile; choose another")
        if not _NAME.fullmatch(name):
            raise ValueError(f"is not a profile name; use {', '.join(PROFILES)}, or letters, digits, - and _")
        return cls(name)

    def __str__(self) -> str:
        return self.name


def read_profile(profile: DeploymentProfile) -> Layer:
    """Return the layer of values that a profile sets by itself; empty for a custom profile."""
    layer = Layer()
    for path, value in PROFILES.get(profile.name, {}).items():
        layer.set(KEYS[path], value, f"profile {profile}")
    return layer


def unknown_profile(name: str, origin: str, why: str) -> str:
    """Return the message for a profile that cannot be used: ``unknown profile 'x' (--profile): why``."""
    return f"unknown profile {shown(name)} ({origin}): {why}"
