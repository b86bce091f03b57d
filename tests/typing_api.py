"""The public interface as an application uses it: checked by mypy (``make lint``), never run."""

from __future__ import annotations

import os
from typing import assert_type

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.web.resource import IResource
from twisted.web.server import Site

import dstreams
from dstreams import (
    AcidStorage,
    Config,
    ConfigError,
    ConfigLoadOptions,
    DeploymentProfile,
    FileStorage,
    MemoryStorage,
    MountedStreams,
    Storage,
    StorageError,
    StreamsSite,
)
from dstreams.config.schema import Http, Limits


def configurations() -> Config:
    """From files and the environment, or made here and checked."""
    options = ConfigLoadOptions(config_dir="/etc/durable-streams", profile=DeploymentProfile.parse("prod"))
    try:
        loaded = dstreams.load_config(options, os.environ)
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    assert_type(dstreams.render_effective_json(loaded), str)
    made = Config(http=Http(stream_base_path="/streams"), limits=Limits(max_memory_bytes=1 << 30))
    dstreams.validate_config(made)
    return loaded


def storages(config: Config) -> list[Storage]:
    """Every backend is a ``Storage``."""
    return [
        MemoryStorage(),
        FileStorage.at("data", reactor),
        FileStorage.at("data", reactor, durable=False, checkpoint_bytes=1 << 20),
        AcidStorage.at("data", reactor, shard_count=4),
        dstreams.build_storage(config, reactor),
    ]


def resource(config: Config, stopping: Deferred[None]) -> IResource:
    """In a site of one's own."""
    try:
        mounted = dstreams.build_resource(
            FileStorage.at("data", reactor), config, reactor=reactor, ready=lambda: True, shutdown=stopping
        )
    except StorageError as error:
        raise SystemExit(str(error)) from None
    assert_type(mounted, MountedStreams)
    assert_type(mounted.end_live(), None)
    assert_type(mounted.close(), Deferred[None])
    Site(mounted)
    return mounted


def site(config: Config) -> IProtocolFactory:
    """On ports of its own."""
    built = dstreams.build_site(config=config)
    assert_type(built, StreamsSite)
    assert_type(built.close(), Deferred[None])
    assert_type(built.over_tls(), IProtocolFactory)
    return built.factory


def defaults() -> None:
    """Everything may be left out."""
    assert_type(dstreams.build_resource(), MountedStreams)
    assert_type(dstreams.build_site(), StreamsSite)
    assert_type(dstreams.__version__, str)
