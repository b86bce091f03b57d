"""``python confined.py UNIT COMMAND...``: runs a command under the system-call filter that a systemd unit asks for.

What systemd does for a service, as far as one process can do it to itself: the calls that ``SystemCallFilter=``
doesn't allow fail with EPERM, no memory becomes executable if ``MemoryDenyWriteExecute=`` says so, and no
privilege is gained any more.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_MDWE = 65
_ALLOW = 0x7FFF0000
_DENY = 0x00050000 | errno.EPERM


def settings(unit: Path, name: str) -> list[str]:
    """The values of one setting, in the order of the file."""
    lines = (line.partition("=") for line in unit.read_text().splitlines() if not line.startswith("#"))
    return [value for found, _, value in lines if found == name]


def calls_of(name: str) -> set[str]:
    """The system calls of a group such as ``@aio``, or of itself."""
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    members = [line.strip() for line in listed.stdout.splitlines() if line.startswith("    ")]
    return {call for member in members if not member.startswith("#") for call in calls_of(member)}


def allowed_calls(unit: Path) -> set[str]:
    """All that the unit's filter leaves: a list that begins with ``~`` takes away."""
    allowed: set[str] = set()
    for value in settings(unit, "SystemCallFilter"):
        calls = {call for name in value.removeprefix("~").split() for call in calls_of(name)}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed


def confine(allowed: set[str], *, deny_write_execute: bool) -> None:
    """Let this process, and what it becomes, make no other calls."""
    libc = ctypes.CDLL(None, use_errno=True)
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    rules = library.seccomp_init(_DENY)
    for name in allowed:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            assert library.seccomp_rule_add(rules, _ALLOW, number, 0) == 0, name
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    if deny_write_execute:
        libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0)  # Linux 6.3; an older one goes without
    assert library.seccomp_load(rules) == 0


def main() -> None:
    """Confine this process, and become the command."""
    unit = Path(sys.argv[1])
    confine(allowed_calls(unit), deny_write_execute=settings(unit, "MemoryDenyWriteExecute") == ["yes"])
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
