"""The options that say which configuration a command is about."""

from __future__ import annotations

import argparse
import os

from dstreams.config import ConfigLoadOptions, LoadedConfig, load, read


def add_options(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    """Add ``--config``, ``--config-dir`` and ``--profile``.

    :param again: for a command that takes them too, so that they may stand before or after it.
    """
    default = argparse.SUPPRESS if again else None
    group = parser.add_argument_group("configuration")
    group.add_argument("-c", "--config", metavar="FILE", default=default, help="a TOML file with configuration keys")
    group.add_argument(
        "--config-dir",
        metavar="DIR",
        default=default,
        help="where default.toml, PROFILE.toml and local.toml are: ./config, else /etc/durable-streams",
    )
    group.add_argument(
        "-p", "--profile", metavar="NAME", default=default, help="default, dev, prod, prod-tls, prod-mtls, or your own"
    )


def load_configuration(options: argparse.Namespace) -> LoadedConfig:
    """The configuration that the options name.

    :raise dstreams.config.ConfigError: with everything that is wrong with it.
    """
    return load(_chosen(options), os.environ)


def read_configuration(options: argparse.Namespace) -> LoadedConfig:
    """The same with everything that is wrong, instead of an error."""
    return read(_chosen(options), os.environ)


def _chosen(options: argparse.Namespace) -> ConfigLoadOptions:
    return ConfigLoadOptions(config_dir=options.config_dir, profile=options.profile, config_override=options.config)
