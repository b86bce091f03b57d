"""Measures how much processor time each turn of a reactor takes, and where the longest ones spend it.

A turn is one iteration of the event loop: it handles what the kernel has reported, and the calls that are due. While it
lasts no other client is served. Processor time of the reactor's thread is measured, not wall time: it includes garbage
collection, and excludes waiting for events and for a busy machine.

A program that is started with :func:`measured_environment` reports its long turns into a file. The server has no code
for it: Python imports ``bench/measured/sitecustomize.py``, which calls :func:`measure_program`.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Protocol

from attrs import asdict, define, field, frozen

ROOT = Path(__file__).resolve().parent.parent
_SITE = Path(__file__).resolve().parent / "measured"

FLOOR_MS = 10.0
"""Shorter turns are not reported, in milliseconds."""

SAMPLE_SECONDS = 0.01
"""How often the stack of a turn that goes on is sampled."""

_MOST_FRAMES = 12
"""How many frames of a stack are kept: the innermost."""

_MOST_STACKS = 5
"""How many stacks of a turn are kept."""

_HANDLE_BYTES = 1024
"""More than libuv's ``uv_prepare_t`` takes in any version (120 bytes today)."""


@frozen
class LongTurn:
    """A turn that took long.

    :param ms: its processor time in milliseconds.
    :param stacks: what the reactor's thread was doing when it was sampled, each as ``file:line function`` from the
        outermost frame to the innermost; empty if the turn ended before the first sample.
    """

    ms: float
    stacks: tuple[str, ...]

    def __str__(self) -> str:
        where = "".join(f"\n  sample {number}:\n{stack}" for number, stack in enumerate(self.stacks, 1))
        return f"a turn of the reactor took {self.ms:.0f} ms of processor time{where}"


class Boundary(Protocol):
    """Something that calls a function once in each turn, until it is stopped."""

    def stop(self) -> None: ...


@define(eq=False)
class Turns:
    """Measures turns from now on; made, started and stopped in the reactor's thread.

    :param long: called with each turn that is longer than ``floor_ms``.
    :param samples: whether stacks are sampled, by a thread of its own.
    """

    _long: Callable[[LongTurn], object]
    _floor_ms: float = FLOOR_MS
    _samples: bool = True
    _number: int = field(default=0, init=False)
    _began: float = field(default=0.0, init=False)
    _stacks: list[str] = field(factory=list, init=False)
    _boundary: Boundary | None = field(default=None, init=False)
    _stopped: threading.Event = field(factory=threading.Event, init=False)

    def start(self, reactor: object) -> None:
        """Begin to measure a reactor's turns; the reactor may run already."""
        self.restart()
        self._boundary = watch(reactor, self.end_turn)
        if not self._samples:
            return
        threading.Thread(target=self._sample, args=(threading.get_ident(),), name="turns", daemon=True).start()

    def stop(self) -> None:
        """Measure no more."""
        self._stopped.set()
        if self._boundary is not None:
            self._boundary.stop()

    def restart(self) -> None:
        """Forget what the present turn has taken so far."""
        self._number += 1
        self._stacks = []
        self._began = time.thread_time()

    def end_turn(self) -> None:
        """A turn ends here, and the next one begins."""
        spent = (time.thread_time() - self._began) * 1000
        if spent > self._floor_ms:
            self._long(LongTurn(spent, tuple(self._stacks)))
        self.restart()

    def _sample(self, thread: int) -> None:
        """Keep a few stacks of each turn that goes on for long (in a thread of its own)."""
        clock = time.pthread_getcpuclockid(thread)
        number = 0
        while not self._stopped.wait(SAMPLE_SECONDS):
            spent = time.clock_gettime(clock) - self._began
            if self._number != number:
                number = self._number
            elif spent > SAMPLE_SECONDS and len(self._stacks) < _MOST_STACKS:
                frame = sys._current_frames().get(thread)  # noqa: SLF001 (documented)
                if frame is not None:
                    self._stacks.append(stack_text(frame))


def stack_text(frame: FrameType) -> str:
    """The innermost frames of a stack, a line each."""
    frames = list(traceback.walk_stack(frame))[:_MOST_FRAMES]
    return "\n".join(
        f"    {each.f_code.co_filename}:{line} {each.f_code.co_qualname}" for each, line in reversed(frames)
    )


# --- where a turn begins -----------------------------------------------------------------------------------


def watch(reactor: object, end_turn: Callable[[], object]) -> Boundary:
    """Have ``end_turn`` called once in each turn of a reactor.

    :raise TypeError: it is no reactor whose turns can be told apart.
    """
    loop = getattr(reactor, "_asyncioEventloop", None)
    if loop is not None and type(loop).__module__ == "uvloop":
        return _Prepare(loop, end_turn)
    if loop is not None:
        return _Before(loop, "_run_once", end_turn)
    if hasattr(reactor, "runUntilCurrent"):
        return _Before(reactor, "runUntilCurrent", end_turn)
    raise TypeError(f"turns of {reactor!r} can't be measured")


@define(eq=False)
class _Before:
    """Calls ``first`` before each call of a method that the loop calls once in each turn."""

    _owner: Any
    _name: str
    _first: Callable[[], object]

    def __attrs_post_init__(self) -> None:
        first, method = self._first, getattr(self._owner, self._name)

        def both() -> None:
            first()
            method()

        setattr(self._owner, self._name, both)

    def stop(self) -> None:
        delattr(self._owner, self._name)


@define(eq=False)
class _Prepare:
    """A libuv prepare handle: its callback runs in each iteration, before the loop waits for events.

    uvloop has no Python interface for it, but exports libuv's functions and a pointer to its loop.
    """

    _loop: Any
    _callback: Callable[[], object]
    _library: ctypes.CDLL = field(init=False)
    _handle: Any = field(init=False)
    _c_callback: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        import uvloop.loop

        # PyDLL keeps the GIL, as uvloop does where it calls these functions.
        self._library = ctypes.PyDLL(uvloop.loop.__file__)
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        loop = ctypes.c_void_p(pointer(uvloop.loop.libuv_get_loop_t_ptr(self._loop), None))
        self._handle = ctypes.create_string_buffer(_HANDLE_BYTES)
        callback = self._callback
        self._c_callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: callback())
        self._library.uv_prepare_init(loop, self._handle)
        self._library.uv_prepare_start(self._handle, self._c_callback)
        # The loop may end although it is there.
        self._library.uv_unref(self._handle)

    def stop(self) -> None:
        _KEPT.append((self._handle, self._c_callback))
        self._library.uv_close(self._handle, None)


_KEPT: list[Any] = []
"""Handles that libuv may still use: it closes them in the loop's next turn, if there is one."""


# --- a whole program ---------------------------------------------------------------------------------------

REPORT_VARIABLE = "TURNS_REPORT"
"""Names the file that a measured program writes to."""

FLOOR_VARIABLE = "TURNS_FLOOR_MS"
"""Shorter turns are not reported, in milliseconds."""

_REACTORS = "twisted.internet.main"
"""Every reactor is installed by a function of this module."""


def measured_environment(report: Path, floor_ms: float = FLOOR_MS) -> dict[str, str]:
    """The environment variables with which a Python program, and each that it starts, reports its long turns.

    :param report: a file; lines of JSON are appended to it.
    """
    folders = [str(_SITE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(folders), REPORT_VARIABLE: str(report), FLOOR_VARIABLE: str(floor_ms)}


def read_report(report: Path) -> list[LongTurn]:
    """The long turns that have been reported so far."""
    if not report.exists():
        return []
    # A program that was killed may have written half a line.
    lines = report.read_text().split("\n")[:-1]
    found = [json.loads(line) for line in lines]
    return [LongTurn(each["ms"], tuple(each["stacks"])) for each in found]


def measure_program() -> None:
    """Measure the turns of the reactor that this process is going to install, if the environment asks for it."""
    report = os.environ.get(REPORT_VARIABLE)
    if report:
        sys.meta_path.insert(0, _Finder(Path(report), float(os.environ.get(FLOOR_VARIABLE, FLOOR_MS))))


@define(eq=False)
class _Finder(MetaPathFinder):
    """Changes ``twisted.internet.main`` when it is imported, if ever: programs without a reactor don't load Twisted."""

    _report: Path
    _floor_ms: float

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002
        if fullname != _REACTORS:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            self._measure(module)

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec

    def _measure(self, module: Any) -> None:
        install = module.installReactor

        def install_measured(reactor: Any) -> None:
            install(reactor)
            reactor.callWhenRunning(Turns(self._note, self._floor_ms).start, reactor)

        module.installReactor = install_measured

    def _note(self, turn: LongTurn) -> None:
        with self._report.open("a") as output:
            output.write(json.dumps(asdict(turn)) + "\n")
