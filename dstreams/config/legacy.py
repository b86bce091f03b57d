"""Old keys that the Rust server still accepts. They are read, and set the keys that replaced them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve, frozen

from dstreams.config.keys import Declaration, Key, Value
from dstreams.config.schema import KEYS
from dstreams.config.settings import Layer, Setting


@frozen
class LegacyKey:
    """An old key.

    :param key: the old key, as it is read.
    :param successor: the key that it sets.
    :param convert: converts the value for the successor; raises ``ValueError`` with the remedy.
    """

    key: Key
    successor: Key
    convert: Callable[[Value], Value] = lambda value: value


def _bind_address(port: Value) -> Value:
    """Return the address for a port, as the Rust server does: all IPv4 interfaces."""
    assert isinstance(port, int)
    if not 0 <= port <= 65_535:
        raise ValueError("must be a port from 0 to 65535")
    return f"0.0.0.0:{port}"


def _port() -> LegacyKey:
    about = "The port to listen on, on all IPv4 interfaces."
    key = Key("server.port", int, 4437, Declaration(about=about, most=65_535))
    return LegacyKey(key, KEYS["server.bind_address"], _bind_address)


def _moved(path: str, successor: str) -> LegacyKey:
    return LegacyKey(evolve(KEYS[successor], path=path), KEYS[successor])


LEGACY: Mapping[str, LegacyKey] = {
    each.key.path: each
    for each in (
        _port(),
        _moved("server.long_poll_timeout_secs", "transport.connection.long_poll_timeout_secs"),
        _moved("server.sse_reconnect_interval_secs", "transport.connection.sse_reconnect_interval_secs"),
        _moved("tls.cert_path", "transport.tls.cert_path"),
        _moved("tls.key_path", "transport.tls.key_path"),
        _moved("log.rust_log", "observability.rust_log"),
    )
}
"""The old keys, by path."""

_OLD_TLS = ("tls.cert_path", "tls.key_path")


def replace_legacy(layer: Layer) -> None:
    """Set the successors of a layer's old keys. A successor that the layer sets itself keeps its value."""
    for path, setting in layer.legacy.items():
        successor = LEGACY[path].successor
        if successor.path not in layer.settings:
            layer.settings[successor.path] = Setting(successor, setting.value, setting.origin)
        layer.warnings.append(f"{path} ({setting.origin}) is an old name; use {successor.path}")


def old_tls_mode(layers: list[Layer], settings: Mapping[str, Setting]) -> Setting | None:
    """Return the mode ``tls`` if old keys set certificate and key and no layer sets a mode, otherwise ``None``.

    :param layers: all layers but the defaults.
    :param settings: the merged layers.
    """
    if any("transport.mode" in layer.settings for layer in layers):
        return None
    used = [layer.legacy[path] for layer in layers for path in _OLD_TLS if path in layer.legacy]
    if not used or any(settings[f"transport.{path}"].value is None for path in _OLD_TLS):
        return None
    return Setting(KEYS["transport.mode"], "tls", f"follows [tls] in {used[-1].origin}")
