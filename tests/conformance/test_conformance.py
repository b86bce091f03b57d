"""The official conformance suite, all of it, against each way of serving the protocol."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast

import pytest

from tests.conformance.suite import HERE, Outcome, missing, run_suite
from tests.support.certificates import Authority
from tests.support.servers import ChildServer, child_server, twistd_server

PASSING = 332
"""How many tests version 0.3.6 of the suite has, without those that ask for subscriptions."""

OPT_IN = "Reserved subscription APIs "
"""How the full names begin of the tests that only run when they are asked for."""

SETTINGS = {"DS_TRANSPORT__CONNECTION__LONG_POLL_TIMEOUT_SECS": "3"}
"""The suite gives a long-poll five seconds to end with a 204 whose headers it checks; with the default of
thirty it gives up and checks nothing, and elsewhere it waits a minute."""

AUTHORITY = "authority.pem"
"""The certificate that a server's is checked with."""

AT_A_TIME = 4
"""How many runs go on at once. They wait for most of the time; more would make each other miss the suite's limits."""

Start = Callable[[Path], AbstractContextManager[ChildServer]]

Runs = dict[Start, "Future[Outcome]"]


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


def tls(directory: Path) -> AbstractContextManager[ChildServer]:
    """Over TLS, with HTTP/1.1 alone, so that the client can't choose."""
    return _secure(directory, "http1")


def http2(directory: Path) -> AbstractContextManager[ChildServer]:
    """Over TLS, with HTTP/2 alone."""
    return _secure(directory, "http2")


def _secure(directory: Path, versions: str) -> AbstractContextManager[ChildServer]:
    authority = Authority(directory)
    assert authority.path.name == AUTHORITY
    identity = authority.issue("server")
    settings = {
        "DS_TRANSPORT__MODE": "tls",
        "DS_TRANSPORT__HTTP__VERSIONS": versions,
        "DS_TRANSPORT__TLS__CERT_PATH": str(identity.certificate),
        "DS_TRANSPORT__TLS__KEY_PATH": str(identity.key),
    }
    return twistd_server(directory, environ=SETTINGS | settings)


HTTP_VERSIONS = {tls: "1.1", http2: "2"}
"""The servers that are asked over TLS, and what their client has to speak."""

STARTS: list[Start] = [channel, *REACTORS, resource, file_fast, file_durable, acid, tls, http2]


def run(start: Start, directory: Path) -> Outcome:
    """Run the suite against a server of its own."""
    with start(directory) as server:
        version = HTTP_VERSIONS.get(start)
        if version is None:
            return run_suite(server.url, directory)
        node = {"NODE_EXTRA_CA_CERTS": str(directory / AUTHORITY), "CONFORMANCE_HTTP_VERSION": version}
        return run_suite(server.secure_url, directory, node)


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """The runs that are wanted, several at a time: most of each is waiting."""
    why = missing()
    if why is not None:
        if os.environ.get("CI", "").lower() in ("", "0", "false"):
            pytest.skip(f"the conformance suite was left out: {why}")
        pytest.fail(f"the conformance suite must run where CI is set, but {why}")
    wanted = [item for item in request.session.items if getattr(item, "originalname", "") == "test_conformance"]
    starts = [cast("pytest.Function", item).callspec.params["start"] for item in wanted]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {start: pool.submit(run, start, tmp_path_factory.mktemp(start.__name__)) for start in starts}


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_conformance(start: Start, runs: Runs) -> None:
    """Every test of the official suite passes, and none is skipped but those for subscriptions."""
    outcome = runs[start].result()
    if outcome.failed:
        pytest.fail(f"{len(outcome.failed)} failed:\n\n" + "\n\n".join(outcome.failed), pytrace=False)
    assert [name for name in outcome.skipped if not name.startswith(OPT_IN)] == []
    assert len(outcome.passed) == PASSING
