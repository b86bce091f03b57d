"""Runs the event loop of the benchmark's own clients, uvloop if it is installed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_in_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a new event loop.

    :raise Exception: also an exception of a callback, or of a signal's handler, which uvloop calls as a callback; the
        loop would only log it and continue to wait.
    """
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_watched(work))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_watched(work))


async def _watched(work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(work)
    raised: list[BaseException] = []

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            raised.append(error)
            task.cancel()
        else:
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(handle)
    try:
        return await task
    except asyncio.CancelledError:
        if raised:
            raise raised[0] from None
        raise
