"""Configuration: one frozen tree, built from defaults, a profile, TOML files and environment variables.

:mod:`dstreams.config.schema` lists the keys, and :mod:`dstreams.config.layers` merges the sources.
"""

from dstreams.config.addresses import BindAddress, Network, parse_bind_address, parse_network
from dstreams.config.layers import ConfigLoadOptions, LoadedConfig, load, load_config, read
from dstreams.config.log_filter import LogFilter, parse_log_filter
from dstreams.config.problems import ConfigError, Problem
from dstreams.config.profiles import DeploymentProfile
from dstreams.config.rendering import render_effective_json
from dstreams.config.schema import (
    Admin,
    Config,
    Connection,
    Http,
    Identity,
    Limits,
    Observability,
    Proxy,
    Server,
    Storage,
    Tls,
    Transport,
    TransportHttp,
)
from dstreams.config.validation import validate_config, warnings

__all__ = [
    "Admin",
    "BindAddress",
    "Config",
    "ConfigError",
    "ConfigLoadOptions",
    "Connection",
    "DeploymentProfile",
    "Http",
    "Identity",
    "Limits",
    "LoadedConfig",
    "LogFilter",
    "Network",
    "Observability",
    "Problem",
    "Proxy",
    "Server",
    "Storage",
    "Tls",
    "Transport",
    "TransportHttp",
    "load",
    "load_config",
    "parse_bind_address",
    "parse_log_filter",
    "parse_network",
    "read",
    "render_effective_json",
    "validate_config",
    "warnings",
]
