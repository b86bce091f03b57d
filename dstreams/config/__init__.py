"""Configuration: one frozen tree, made from defaults, a profile, a TOML file and the environment.

Read :mod:`dstreams.config.schema` for the keys and :mod:`dstreams.config.layers` for how they are filled.
"""

from dstreams.config.addresses import BindAddress, parse_bind_address
from dstreams.config.layers import load_config
from dstreams.config.problems import ConfigError, Problem
from dstreams.config.schema import Config
from dstreams.config.validation import warnings

__all__ = [
    "BindAddress",
    "Config",
    "ConfigError",
    "Problem",
    "load_config",
    "parse_bind_address",
    "warnings",
]
