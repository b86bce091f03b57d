"""The ``twistd`` plugin's options and service for ``durable-streams``.

Nothing imported from here may import ``twisted.internet.reactor``, because the reactor is chosen only after the
options have been read.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import ClassVar, cast

from twisted.python import usage

from dstreams import __version__
from dstreams.config import ConfigError, ConfigLoadOptions, load
from dstreams.net.choice import install_fastest
from dstreams.runtime.startup import StartupError
from dstreams.services import Reactor, ServerService, build_server
from dstreams.telemetry.twistd import build_observer

_EXAMPLES = """
Examples:
  twistd -n durable-streams
      in the foreground, on port 4437, in memory
  twistd -n durable-streams --profile dev
      the same, but reachable from this machine only
  twistd -n durable-streams --config server.toml
      with the keys in the file; docs/reference/configuration.md lists all keys
  DS_SERVER__BIND_ADDRESS=127.0.0.1:8080 twistd -n durable-streams
      every key has an environment variable, which overrides the file

Options before the word durable-streams are twistd's own: --pidfile= prevents
twistd.pid from being written; without -n, twistd becomes a daemon that writes twistd.log.
"""


class Options(usage.Options):
    """The options after the word ``durable-streams``."""

    synopsis = "[--config FILE] [--config-dir DIR] [--profile NAME]"

    longdesc = (
        "A Durable Streams server: append-only streams over HTTP, read from any offset, followed live by"
        " long-polling and Server-Sent Events. Each configuration key comes from, in this order, the built-in"
        " default, the profile, the files of the configuration directory, the file of --config, and the environment;"
        " the last one wins."
    )

    optParameters: ClassVar[list[list[object]]] = [
        ["config", "c", None, "A TOML file with configuration keys."],
        [
            "config-dir",
            None,
            None,
            "Where default.toml, NAME.toml and local.toml are: ./config, else /etc/durable-streams.",
        ],
        ["profile", "p", None, "A set of values: default, dev, prod, prod-tls, prod-mtls, or your own."],
    ]

    def postOptions(self) -> None:
        """Install the reactor. ``twistd --reactor`` has been processed by now, and no reactor is imported yet."""
        install_fastest()

    def getUsage(self, width: int | None = None) -> str:
        """Return the help text followed by the examples, whose line breaks are kept."""
        return f"{super().getUsage(width).rstrip()}\n{_EXAMPLES}"


def makeService(options: Options) -> ServerService:
    """Build the server that the command line, the configuration files and the environment describe.

    :raise SystemExit: with status 1, after one line on stderr for each problem. twistd has not forked yet, so the
        operator sees these lines even when the server would become a daemon.
    """
    try:
        loaded = load(
            ConfigLoadOptions(
                config_dir=options["config-dir"], profile=options["profile"], config_override=options["config"]
            ),
            os.environ,
        )
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None
    from twisted.internet import reactor

    parent = getattr(options, "parent", None)
    foreground = parent is None or bool(parent.get("nodaemon", True))
    config = loaded.config
    try:
        server = build_server(config, cast("Reactor", reactor), foreground=foreground, warnings=loaded.warnings)
    except StartupError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None
    if parent is not None:
        log_format, log_filter = config.observability.log_format, config.observability.log_filter
        server.log_observer = partial(build_observer, parent, log_format, log_filter, __version__, reactor)
    return server
