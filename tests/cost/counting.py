"""Counting what a piece of work costs."""

from __future__ import annotations

import ast
import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import median
from types import CodeType, FrameType
from typing import Any

import dstreams

PACKAGE = str(Path(dstreams.__file__).parent) + "/"

_GENERATED = "<attrs generated "
"""How the file name of a method begins that attrs has made; the class's full name follows."""

_INLINED = frozenset(("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"))
"""Functions in some versions of Python and not in others."""

WARM, TURNS = 10, 40
"""Turns before what is counted: tables grow and things are made that are made once; and those that are counted."""

Work = Callable[[], object]


def is_ours(code: CodeType) -> bool:
    """Whether a function is one of the server's."""
    name = code.co_filename
    return name.startswith(PACKAGE) or (name.startswith(_GENERATED) and " dstreams." in name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without garbage collection, which comes when it likes."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _instead(get: Callable[[], Any], put: Callable[[Any], object], function: object) -> Iterator[None]:
    """With another profile or trace function; a coverage tool's comes back afterwards."""
    former = get()
    put(function)
    try:
        yield
    finally:
        put(former)


def count_calls(work: Work, turns: int = TURNS) -> tuple[float, float]:
    """Calls of ours and of others' functions, for each turn."""
    counts = [0, 0]

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_name not in _INLINED:
            counts[0 if is_ours(frame.f_code) else 1] += 1

    with _quiet(), _instead(sys.getprofile, sys.setprofile, profile):
        for _ in range(turns):
            work()
    return counts[0] / turns, counts[1] / turns


def count_lines(work: Work, turns: int = TURNS) -> float:
    """Lines of ours that are executed, for each turn.

    A statement over several lines counts once: in which order its lines come, and how often, depends on the version
    of Python.
    """
    count = 0

    def trace_frame(joined: dict[int, int]) -> Any:
        last = 0

        def trace_lines(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal count, last
            if event == "line":
                statement = joined.get(frame.f_lineno)
                count += statement is None or statement != last
                last = statement or 0
            return trace_lines

        return trace_lines

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        name = frame.f_code.co_filename
        return trace_frame(_joined_lines(name)) if name.startswith(PACKAGE) else None

    with _quiet(), _instead(sys.gettrace, sys.settrace, trace):
        for _ in range(turns):
            work()
    return count / turns


@cache
def _joined_lines(name: str) -> dict[int, int]:
    """For each line of a statement that goes over several: the first one.

    Statements with a comprehension aren't among them: its rounds are what is to be counted.
    """
    path, found = Path(name), {}
    if not path.exists():
        return {}
    for node in ast.walk(ast.parse(path.read_bytes())):
        if not isinstance(node, ast.stmt) or any(isinstance(each, ast.comprehension) for each in _head(node)):
            continue
        body = getattr(node, "body", None)
        end = body[0].lineno - 1 if body else node.end_lineno or node.lineno
        if end > node.lineno:
            found.update(dict.fromkeys(range(node.lineno, end + 1), node.lineno))
    return found


def _head(statement: ast.stmt) -> Iterator[ast.AST]:
    """All of a statement but the statements in it."""
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        yield node
        todo += (each for each in ast.iter_child_nodes(node) if not isinstance(each, ast.stmt))


def measure_peak(work: Work, turns: int = TURNS) -> float:
    """The most bytes that a turn holds beyond what was held before it; the median of all turns."""
    peaks = []
    with _quiet(), _traced():
        for _ in range(turns):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            work()
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    return float(median(peaks))


def measure_kept(make: Callable[[int], object], count: int = 1000) -> float:
    """The bytes that each of ``count`` things keeps.

    :param make: makes one; it must keep it alive itself.
    """
    for number in range(WARM):
        make(number)
    with _traced():
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(WARM, WARM + count):
            make(number)
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / count


@contextmanager
def _traced() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
