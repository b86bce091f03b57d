"""Where and with what a benchmark ran."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from twisted import __version__ as twisted_version

from bench.servers import ROOT


def machine(directory: Path) -> dict[str, str]:
    """What one has to know of the machine to read the figures.

    :param directory: where the servers keep their data.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "file system": file_system(directory),
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "twisted": twisted_version,
        "uvloop": _installed("uvloop"),
        "node": _output("node", "--version"),
        "wrk": _output("wrk", "-v").partition(" Copyright")[0].removeprefix("wrk "),
        "commit": commit(),
    }


def commit() -> str:
    """The commit of the checkout, and whether it has been changed since."""
    commit = _output("git", "rev-parse", "--short=12", "HEAD")
    return f"{commit}, with changes" if _output("git", "status", "--porcelain") else commit


def file_system(directory: Path) -> str:
    """The type of file system that a directory is on."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "?"
    return mounted(mounts.read_text(), str(directory.resolve()))


def mounted(mounts: str, directory: str) -> str:
    """The type of file system that a directory is on.

    :param mounts: as ``/proc/mounts`` has it.
    :param directory: absolute.
    """
    found, longest = "?", 0
    for line in mounts.splitlines():
        place, kind = line.split()[1:3]
        # Of several mounted on one place the last one counts.
        if len(place) >= longest and f"{directory}/".startswith(f"{place.rstrip('/')}/"):
            found, longest = kind, len(place)
    return found


def described(facts: Mapping[str, str]) -> str:
    """Facts as a Markdown list."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "?")


def _installed(package: str) -> str:
    """A package's version; empty when it isn't installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _output(*command: str) -> str:
    """The first line that a program prints; empty when it can't be run."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return (done.stdout.strip() or done.stderr.strip()).partition("\n")[0]
