"""Long turns that are planted are found, wherever they are."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.task import Clock, deferLater

from bench.turns import LongTurn, measured_environment, read_report
from tests.support.servers import ROOT, child_environment, child_server, pytest_environment
from tests.support.turn_guard import GUARD, LIMIT_MS

LONG = LIMIT_MS / 1000 * 1.5
"""Seconds of a turn that is found."""

SHORT = LIMIT_MS / 1000 * 0.5
"""Seconds of one that isn't: a machine may be slower in one moment than in the next."""

PLANTED = """
import sys, time
reactor_module = sys.argv[1]
__import__(reactor_module, fromlist=["install"]).install()
from twisted.internet import reactor

def planted_work(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass

def plant(turns):
    # One after the other: on a busy machine, calls that are due at different times share a turn.
    if turns:
        planted_work(float(turns[0]))
        reactor.callLater(0.01, plant, turns[1:])
    else:
        reactor.stop()

reactor.callLater(0.01, plant, sys.argv[2:])
reactor.run()
"""

REACTORS = [
    "dstreams.net.reactor",
    "twisted.internet.asyncioreactor",
    "twisted.internet.epollreactor",
    "twisted.internet.selectreactor",
]


def work(seconds: float) -> None:
    """Take processor time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def found_and_forgotten() -> list[LongTurn]:
    """The turns that were found, which then don't fail the test."""
    return GUARD.collect()


class ChildTests:
    """Reactors in other processes."""

    @pytest.mark.parametrize("reactor", REACTORS)
    def test_planted_turns(self, tmp_path: Path, reactor: str) -> None:
        """Every turn over the limit is reported with its time and its place, on every reactor; shorter ones aren't."""
        if reactor == "dstreams.net.reactor":
            pytest.importorskip("uvloop")
        arguments = [sys.executable, "-c", PLANTED, reactor, str(SHORT), str(LONG), str(SHORT), str(2 * LONG)]
        report = tmp_path / "report"
        subprocess.run(
            arguments, env=child_environment() | measured_environment(report, LIMIT_MS), check=True, timeout=60
        )
        first, second = read_report(report)
        assert LONG * 1000 <= first.ms < 1.5 * LONG * 1000
        assert 2 * LONG * 1000 <= second.ms < 3 * LONG * 1000
        assert all("planted_work" in turn.stacks[0] for turn in (first, second))

    def test_time_that_is_waited_does_not_count(self, tmp_path: Path) -> None:
        """A turn that sleeps takes no processor time."""
        script = PLANTED.replace("time.thread_time()", "time.monotonic()").replace("pass\n", "time.sleep(0.01)\n")
        report = tmp_path / "report"
        environment = child_environment() | measured_environment(report, LIMIT_MS)
        command = [sys.executable, "-c", script, "twisted.internet.epollreactor", str(2 * LONG)]
        subprocess.run(command, env=environment, check=True, timeout=60)
        assert read_report(report) == []

    def test_programs_without_a_reactor(self) -> None:
        """A program that doesn't need Twisted isn't made to import it."""
        command = [sys.executable, "-c", "import sys; sys.exit('twisted' in sys.modules)"]
        assert subprocess.run(command, env=child_environment(), check=False, timeout=60).returncode == 0

    @pytest.mark.slow
    @pytest.mark.parametrize("reactor", ["default", "epoll"])
    def test_server(self, tmp_path: Path, reactor: str) -> None:
        """A long turn of a real server that ``tests.support.servers`` starts is found."""
        plant = tmp_path / "planted.py"
        plant.write_text(_SERVER)
        options = [] if reactor == "default" else [f"--reactor={reactor}"]
        command = [sys.executable, str(plant), "--pidfile=", "-n", *options, "durable-streams"]
        with child_server(tmp_path, command, {"DS_SERVER__BIND_ADDRESS": "127.0.0.1:0"}):
            end = time.monotonic() + 30
            while not (turns := found_and_forgotten()) and time.monotonic() < end:
                time.sleep(0.05)
        assert any("planted_work" in stack for stack in turns[0].stacks)


_SERVER = f"""
import time
from twisted.internet import main
install = main.installReactor

def planted_work():
    end = time.thread_time() + {2 * LONG}
    while time.thread_time() < end:
        pass

def install_and_plant(reactor):
    install(reactor)
    reactor.callLater(0.5, planted_work)

main.installReactor = install_and_plant
from twisted.scripts.twistd import run
run()
"""


class HereTests:
    """This process."""

    def test_clock(self) -> None:
        """A call of a Clock that takes too long is found."""
        clock = Clock()
        clock.callLater(1, work, LONG)
        clock.callLater(2, work, SHORT)
        clock.advance(1)
        clock.advance(1)
        assert [turn.ms > LIMIT_MS for turn in found_and_forgotten()] == [True]

    def test_cancelled_call(self) -> None:
        """What the guard adds to a Clock's calls changes nothing about them."""
        clock = Clock()
        call = clock.callLater(1, work, LONG)
        call.cancel()
        clock.advance(1)
        assert found_and_forgotten() == []


@pytest_twisted.ensureDeferred
async def test_reactor() -> None:
    """A turn of this process's reactor that takes too long is found; two short ones after each other aren't."""
    from twisted.internet import reactor

    for seconds in (SHORT, LONG, SHORT):
        await deferLater(reactor, 0.01, work, seconds)
    await deferLater(reactor, 0.01)
    (turn,) = found_and_forgotten()
    assert turn.ms >= LONG * 1000


def test_failing(tmp_path: Path) -> None:
    """A test with a long turn fails, and one that has the marker doesn't."""
    module = tmp_path / "test_planted.py"
    module.write_text(_PLANTED_TESTS)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-q", "-c", str(ROOT / "pyproject.toml")]
    command = [sys.executable, "-m", "pytest", *options, f"--rootdir={tmp_path}", str(module)]
    done = subprocess.run(
        command, cwd=ROOT, env=pytest_environment(), capture_output=True, text=True, check=False, timeout=120
    )
    assert "ERROR " in done.stdout, done.stdout + done.stderr
    assert "3 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert f"turns over {LIMIT_MS:.0f} ms during the test" in done.stdout


_PLANTED_TESTS = f"""
import pytest
from twisted.internet.task import Clock
from tests.test_turn_guard import work

def turn(seconds):
    clock = Clock()
    clock.callLater(0, work, seconds)
    clock.advance(0)

def test_short():
    turn({SHORT})

def test_long():
    turn({LONG})

@pytest.mark.long_turns(reason="it is planted")
def test_marked():
    turn({LONG})
"""
