"""Shared by the commands that list and move streams: options, access to the streams, and error reporting."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from dstreams.cli.configuration import add_options, load_configuration
from dstreams.config import Config, ConfigError
from dstreams.config.problems import printable_lines
from dstreams.runtime.progress import interrupted, on_terminal
from dstreams.storage.directory import DirectoryInUse
from dstreams.storage.interface import StorageError
from dstreams.storage.snapshot import open_snapshot
from dstreams.transfer.directory import DirectoryStreams
from dstreams.transfer.errors import TransferError
from dstreams.transfer.http import Server, Tls
from dstreams.transfer.server import ServerStreams
from dstreams.transfer.store import check_directory

Command = Callable[[argparse.Namespace], None]


def add_source_options(parser: argparse.ArgumentParser, *, names: bool = True) -> None:
    """Add the options that select the streams' source.

    :param names: whether streams can be selected by name.
    """
    if names:
        parser.add_argument(
            "--stream",
            metavar="NAME",
            action="append",
            default=[],
            help="only the stream of this name; may be repeated",
        )
    add_options(parser, again=True)
    group = parser.add_argument_group(
        "a running server", "Without --url, the data directory, which must not be in use."
    )
    group.add_argument("--url", metavar="URL", help="the URL of its streams, such as http://127.0.0.1:4437/v1/stream")
    if names:
        group.add_argument(
            "--admin-url",
            metavar="URL",
            help="the URL of its admin pages, such as http://127.0.0.1:9090/admin; without it, name the streams",
        )
    group.add_argument("--cacert", metavar="FILE", help="certificate authorities to trust, in PEM; else the system's")
    group.add_argument("--cert", metavar="FILE", help="the client certificate to present, in PEM")
    group.add_argument("--key", metavar="FILE", help="the key of the client certificate, in PEM")


@contextmanager
def open_server(options: argparse.Namespace) -> Iterator[Server]:
    """Connect to the server that the options select."""
    with closing(Server(options.url, Tls(options.cacert, options.cert, options.key))) as server:
        yield server


@contextmanager
def open_streams(options: argparse.Namespace) -> Iterator[DirectoryStreams | ServerStreams]:
    """Open the selected streams for reading.

    :raise TransferError: if they cannot be reached.
    """
    if options.url is not None:
        with open_server(options) as server:
            yield ServerStreams(server, options.stream, options.admin_url, time.time())
        return
    if options.admin_url is not None:
        raise TransferError("--admin-url needs --url")
    config = configuration(options)
    check_directory(config.storage)
    with open_snapshot(config.storage.data_dir, on_terminal()) as snapshot:
        yield DirectoryStreams(snapshot.catalog, snapshot.sources, time.time())


def configuration(options: argparse.Namespace) -> Config:
    """Load the configuration that the options select."""
    return load_configuration(options).config


def run(name: str, command: Command) -> Callable[[argparse.Namespace], int]:
    """Return a function that runs a command and reports a failure to the operator in one line.

    :param name: the command's name.
    :return: a function from the options to the exit status.
    """

    def checked(options: argparse.Namespace) -> int:
        try:
            with _ended_in_order():
                command(options)
                sys.stdout.flush()
        except DirectoryInUse as error:
            problem = f"{error.directory} is in use by process {error.owner}: use --url to go through that server"
        except BrokenPipeError:
            raise  # handled in the same way for every command
        except (TransferError, StorageError, ConfigError, OSError) as error:
            problem = str(error)
        except KeyboardInterrupt:
            problem = "interrupted"
        else:
            return 0
        interrupted()
        print(f"durable-streams {name}: {printable_lines(problem)}", file=sys.stderr)
        return 1

    return checked


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, so that incomplete output is cleaned up."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
