"""How many connections the limit on descriptors allows."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve
from twisted.internet.pollreactor import PollReactor
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import LogLevel, capturedLogs, formatEvent

from dstreams.config import Config
from dstreams.services.admission import Admission
from dstreams.services.descriptors import (
    ADMIN_CONNECTIONS,
    OWN_DESCRIPTORS,
    DescriptorService,
    connections_for,
    watchable,
)
from tests.support.servers import ROOT

_RAISED = """
import resource
from dstreams.services.descriptors import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def configured(mode: str = "memory", admin: str | None = None, most: int = 0, shards: int = 4) -> Config:
    config = Config()
    return evolve(
        config,
        storage=evolve(config.storage, mode=mode, acid_shard_count=shards),
        admin=evolve(config.admin, endpoint=admin),
        server=evolve(config.server, max_connections=most),
    )


class ConnectionsForTests:
    """What is left for clients."""

    def test_memory(self) -> None:
        """All but what the process itself needs."""
        assert connections_for(configured(), 1024) == 1024 - OWN_DESCRIPTORS

    def test_admin(self) -> None:
        """The admin listener has its share."""
        expected = 1024 - OWN_DESCRIPTORS - ADMIN_CONNECTIONS
        assert connections_for(configured(admin="127.0.0.1:0"), 1024) == expected

    @pytest.mark.parametrize("mode", ["file-fast", "file-durable"])
    def test_files(self, mode: str) -> None:
        """So have the files that are kept open, which are fewer where there are few descriptors."""
        assert connections_for(configured(mode), 10_000) == 10_000 - OWN_DESCRIPTORS - 256
        assert connections_for(configured(mode), 256) == 256 - OWN_DESCRIPTORS - 64

    def test_databases(self) -> None:
        """Every database has its files, and so has every idle connection to one."""
        assert connections_for(configured("acid"), 1024) == 1024 - OWN_DESCRIPTORS - 3 * 4 - 2 * 32
        assert connections_for(configured("acid", shards=256), 2048) == 2048 - OWN_DESCRIPTORS - 3 * 256 - 2 * 32

    @pytest.mark.parametrize(("descriptors", "connections"), [(60, 15), (3, 1)])
    def test_very_few(self, descriptors: int, connections: int) -> None:
        """Some clients are let in however few there are."""
        assert connections_for(configured("acid"), descriptors) == connections


class DescriptorServiceTests:
    """Settling it at the start."""

    def started(
        self, config: Config, descriptors: int, watchable: int = sys.maxsize
    ) -> tuple[int, list[str], list[str]]:
        """How many are let in then; what is said, and what is warned of."""
        admission = Admission(int, float, "server.max_connections")
        with capturedLogs() as events:
            DescriptorService(config, admission, lambda: descriptors, watchable).startService()
        told = [(event["log_level"], formatEvent(event)) for event in events]
        return (
            admission.most,
            [text for level, text in told if level is LogLevel.info],
            [text for level, text in told if level is not LogLevel.info],
        )

    def test_derived(self) -> None:
        """Unless it is set, the number follows from the descriptors, and is told."""
        line = "up to 960 connections at a time: the process may have 1024 file descriptors"
        assert self.started(configured(), 1024) == (960, [line], [])

    def test_set(self) -> None:
        """What is set holds where there are descriptors for it."""
        line = "up to 500 connections at a time: the process may have 1024 file descriptors"
        assert self.started(configured(most=500), 1024) == (500, [line], [])

    def test_too_many(self) -> None:
        """Where there aren't, as many as are possible are let in, and a line says what to do."""
        most, _, warnings = self.started(configured(most=5000), 1024)
        assert most == 960
        (warning,) = warnings
        assert warning == (
            "server.max_connections = 5000 cannot be reached; raise the hard limit on file descriptors to 5064"
            " (LimitNOFILE, ulimit -Hn), or lower the key"
        )
        assert self.started(configured(most=5000), 5064)[::2] == (5000, [])

    def test_select(self) -> None:
        """A reactor on select watches few descriptors, however many there are; then more of them don't help."""
        line = "up to 960 connections at a time: the reactor on select can watch 1024 file descriptors"
        assert self.started(configured(), 20_000, watchable(SelectReactor.__new__(SelectReactor))) == (960, [line], [])
        most, _, warnings = self.started(configured(most=5000), 20_000, 1024)
        assert most == 960
        (warning,) = warnings
        assert warning == (
            "server.max_connections = 5000 cannot be reached; choose a reactor that does not use select (twistd"
            " --reactor=), or lower the key"
        )
        assert self.started(configured(), 256, 1024)[0] == 256 - OWN_DESCRIPTORS

    def test_other_reactors(self) -> None:
        """Other reactors watch whatever there is."""
        assert watchable(PollReactor.__new__(PollReactor)) == sys.maxsize


class RaiseLimitTests:
    """The process's own limit."""

    @pytest.mark.parametrize("soft", [64, 100])
    def test_raised(self, soft: int) -> None:
        """The soft limit becomes the hard one, which stays as it is."""
        code = _RAISED.format(soft=soft, hard=100)
        ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert ran.stdout == "100 100 100\n"

    def test_forbidden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where it can't be raised, it is what it was."""

        def refuse(*_: object) -> None:
            raise ValueError("not allowed to raise maximum limit")

        monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 200))
        monkeypatch.setattr(resource, "setrlimit", refuse)
        from dstreams.services.descriptors import raise_limit

        assert raise_limit() == 100


def test_reference_says_what_is_kept() -> None:
    """The page about the process has the figures."""
    page = (Path(ROOT) / "docs/reference/process.md").read_text()
    section = page.partition("## File descriptors")[2].partition("\n## ")[0]
    figures = {int(figure) for figure in re.findall(r"\d+", section)}
    assert {OWN_DESCRIPTORS, ADMIN_CONNECTIONS} <= figures
