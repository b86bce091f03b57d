"""A Durable Streams server on Twisted.

The server itself is the ``twistd`` plugin ``durable-streams``. To embed it in another program, use
:func:`build_resource`, a resource for a twisted.web or klein application, or :func:`build_site`, which listens on its
own ports. The names that can be imported from here are the public interface; ``docs/reference/embedding.md``
describes it.
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
    from dstreams.embedding import MountedStreams, StreamsSite, build_resource, build_site
    from dstreams.server import build_storage
    from dstreams.storage.acid import AcidStorage
    from dstreams.storage.files.store import FileStorage
    from dstreams.storage.interface import Storage, StorageError
    from dstreams.storage.memory import MemoryStorage

__version__ = "0.1.0"

__all__ = [
    "AcidStorage",
    "Config",
    "ConfigError",
    "ConfigLoadOptions",
    "DeploymentProfile",
    "FileStorage",
    "MemoryStorage",
    "MountedStreams",
    "Storage",
    "StorageError",
    "StreamsSite",
    "__version__",
    "build_resource",
    "build_site",
    "build_storage",
    "load_config",
    "render_effective_json",
    "validate_config",
]

_PUBLIC = {
    "AcidStorage": "dstreams.storage.acid",
    "Config": "dstreams.config",
    "ConfigError": "dstreams.config",
    "ConfigLoadOptions": "dstreams.config",
    "DeploymentProfile": "dstreams.config",
    "FileStorage": "dstreams.storage.files.store",
    "MemoryStorage": "dstreams.storage.memory",
    "MountedStreams": "dstreams.embedding",
    "Storage": "dstreams.storage.interface",
    "StorageError": "dstreams.storage.interface",
    "StreamsSite": "dstreams.embedding",
    "build_resource": "dstreams.embedding",
    "build_site": "dstreams.embedding",
    "build_storage": "dstreams.server",
    "load_config": "dstreams.config",
    "render_effective_json": "dstreams.config",
    "validate_config": "dstreams.config",
}
"""The module that defines each public name. It is imported at first use: some parts of the server install a reactor
when they are imported, and a program that only starts ``twistd`` must still be able to choose one."""


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    try:
        module = _PUBLIC[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
