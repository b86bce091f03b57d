"""A Durable Streams server on Twisted.

The server is the ``twistd`` plugin ``durable-streams``. For a place in another twisted.web or klein
application there is :func:`build_resource`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dstreams.config import (
        Config,
        ConfigError,
        ConfigLoadOptions,
        DeploymentProfile,
        load_config,
        render_effective_json,
        validate_config,
    )
    from dstreams.http.resource import build_resource

__version__ = "0.1.0"

__all__ = [
    "Config",
    "ConfigError",
    "ConfigLoadOptions",
    "DeploymentProfile",
    "__version__",
    "build_resource",
    "load_config",
    "render_effective_json",
    "validate_config",
]

_PUBLIC = {
    "Config": "dstreams.config",
    "ConfigError": "dstreams.config",
    "ConfigLoadOptions": "dstreams.config",
    "DeploymentProfile": "dstreams.config",
    "build_resource": "dstreams.http.resource",
    "load_config": "dstreams.config",
    "render_effective_json": "dstreams.config",
    "validate_config": "dstreams.config",
}
"""Where each public name is defined. Imported when it is asked for: parts of the server install a reactor
when they are imported, and whoever only starts ``twistd`` may still want to choose one."""


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    try:
        module = _PUBLIC[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
