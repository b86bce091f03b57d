"""Our own clients' event loop."""

from __future__ import annotations

import asyncio

import pytest

from bench.loops import run_in_loop
from bench.runs import limited
from bench.workload import LoadFailure


class RunInLoopTests:
    def test_result(self) -> None:
        """A coroutine's result comes back, and so does what it raises."""

        async def divide(number: int) -> float:
            await asyncio.sleep(0)
            return 1 / number

        assert run_in_loop(divide(2)) == 0.5
        with pytest.raises(ZeroDivisionError):
            run_in_loop(divide(0))

    def test_callback(self) -> None:
        """What a callback raises ends the run: nobody waits for ever."""

        async def wait() -> None:
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)
            await asyncio.Event().wait()

        with pytest.raises(ZeroDivisionError):
            run_in_loop(wait())

    def test_limited(self) -> None:
        """A run that takes too long is broken off in the loop, too."""

        async def wait() -> None:
            await asyncio.Event().wait()

        with pytest.raises(LoadFailure, match="longer"), limited(0.1):
            run_in_loop(wait())
