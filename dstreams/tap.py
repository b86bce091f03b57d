"""``twistd``'s view of the server: the options of ``durable-streams``, and the service they make.

Nothing imported from here may import klein or the reactor: which reactor it is, is settled only after the
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
from dstreams.services import Reactor, ServerService, build_server
from dstreams.startup import StartupError
from dstreams.telemetry.twistd import build_observer

_EXAMPLES = """
Examples:
  twistd -n durable-streams
      in the foreground, on port 4437, in memory
  twistd -n durable-streams --profile dev
      the same, for this machine only
  twistd -n durable-streams --config server.toml
      as the file says; docs/reference/configuration.md lists its keys
  DS_SERVER__BIND_ADDRESS=127.0.0.1:8080 twistd -n durable-streams
      every key has an environment variable, which wins over the file

Options before the word durable-streams are twistd's own: --pidfile= keeps it from
writing twistd.pid, without -n it becomes a daemon that writes twistd.log.
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
        """Settle which reactor runs: ``twistd --reactor`` has spoken by now, and nothing has imported one."""
        install_fastest()

    def getUsage(self, width: int | None = None) -> str:
        """The help text, with examples that keep their lines."""
        return f"{super().getUsage(width).rstrip()}\n{_EXAMPLES}"


def makeService(options: Options) -> ServerService:
    """The server as the command line, the configuration file and the environment describe it.

    :raise SystemExit: with status 1, after a line on stderr for everything that is wrong. twistd hasn't
        forked yet, so that the operator sees it in either mode.
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
