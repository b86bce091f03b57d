"""The official conformance suite, all of it, against each way of serving the protocol."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.conformance.suite import HERE, Outcome, missing, run_suite
from tests.servers import ChildServer, child_server, twistd_server

PASSING = 332
"""How many tests version 0.3.6 of the suite has, without those that ask for subscriptions."""

OPT_IN = "Reserved subscription APIs "
"""How the full names begin of the tests that only run when they are asked for."""

SETTINGS = {"DS_TRANSPORT__CONNECTION__LONG_POLL_TIMEOUT_SECS": "3"}
"""The suite gives a long-poll five seconds to end with a 204 whose headers it checks; with the default of
thirty it gives up and checks nothing, and elsewhere it waits a minute."""

Start = Callable[[Path], AbstractContextManager[ChildServer]]


def channel(directory: Path) -> AbstractContextManager[ChildServer]:
    """The server as everybody starts it, on its own HTTP/1.1 channel and, where it is installed, on uvloop."""
    return twistd_server(directory, environ=SETTINGS)


def epoll(directory: Path) -> AbstractContextManager[ChildServer]:
    """The same on the reactor that is Twisted's default on Linux."""
    return twistd_server(directory, environ=SETTINGS, reactor="epoll")


def asyncio(directory: Path) -> AbstractContextManager[ChildServer]:
    """The same on Twisted's asyncio reactor."""
    return twistd_server(directory, environ=SETTINGS, reactor="asyncio")


REACTORS = [epoll, asyncio] if sys.platform == "linux" else [asyncio]


def file_fast(directory: Path) -> AbstractContextManager[ChildServer]:
    """The same, kept in files that aren't synced."""
    return _durable(directory, "file-fast")


def file_durable(directory: Path) -> AbstractContextManager[ChildServer]:
    """The same, kept in files that are."""
    return _durable(directory, "file-durable")


def acid(directory: Path) -> AbstractContextManager[ChildServer]:
    """The same, kept in SQLite."""
    return _durable(directory, "acid")


def _durable(directory: Path, mode: str) -> AbstractContextManager[ChildServer]:
    # Checkpoints happen all the time, so that reads come from memory, from files, and from both.
    settings = {
        "DS_STORAGE__MODE": mode,
        "DS_STORAGE__DATA_DIR": str(directory / "data"),
        "DS_STORAGE__CHECKPOINT_BYTES": "20000",
    }
    return twistd_server(directory, environ=SETTINGS | settings)


def resource(directory: Path) -> AbstractContextManager[ChildServer]:
    """The twisted.web resource that embedders mount."""
    return child_server(directory, [sys.executable, str(HERE / "resource_server.py")], SETTINGS)


@pytest.fixture
def _suite() -> None:
    why = missing()
    if why is None:
        return
    if os.environ.get("CI", "").lower() in ("", "0", "false"):
        pytest.skip(f"the conformance suite was left out: {why}")
    pytest.fail(f"the conformance suite must run where CI is set, but {why}")


@pytest.mark.slow
@pytest.mark.usefixtures("_suite")
@pytest.mark.parametrize(("versions", "client"), [("http1", "1.1"), ("http2", "2")])
def test_conformance_over_tls(versions: str, client: str, tmp_path: Path) -> None:
    """The same over TLS, with HTTP/1.1 and with HTTP/2: each alone, so that the client can't choose the other."""
    authority = Authority(tmp_path)
    identity = authority.issue("server")
    settings = {
        "DS_TRANSPORT__MODE": "tls",
        "DS_TRANSPORT__HTTP__VERSIONS": versions,
        "DS_TRANSPORT__TLS__CERT_PATH": str(identity.certificate),
        "DS_TRANSPORT__TLS__KEY_PATH": str(identity.key),
    }
    node = {"NODE_EXTRA_CA_CERTS": str(authority.path), "CONFORMANCE_HTTP_VERSION": client}
    with twistd_server(tmp_path, environ=SETTINGS | settings) as server:
        check(run_suite(server.secure_url, tmp_path, node))


@pytest.mark.slow
@pytest.mark.usefixtures("_suite")
@pytest.mark.parametrize("start", [channel, *REACTORS, resource, file_fast, file_durable, acid])
def test_conformance(start: Start, tmp_path: Path) -> None:
    """Every test of the official suite passes, and none is skipped but those for subscriptions."""
    with start(tmp_path) as server:
        check(run_suite(server.url, tmp_path))


def check(outcome: Outcome) -> None:
    """Every test has passed, and none was skipped but those for subscriptions."""
    if outcome.failed:
        pytest.fail(f"{len(outcome.failed)} failed:\n\n" + "\n\n".join(outcome.failed), pytrace=False)
    assert [name for name in outcome.skipped if not name.startswith(OPT_IN)] == []
    assert len(outcome.passed) == PASSING
