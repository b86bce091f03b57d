"""Facts about the machine and the software of a benchmark run."""

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
    """Return the facts that are needed to interpret the figures.

    :param directory: the directory of the servers' data.
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
    """Return the commit of the checkout, and whether the checkout has changes."""
    commit = _output("git", "rev-parse", "--short=12", "HEAD")
    return f"{commit}, with changes" if _output("git", "status", "--porcelain") else commit


def file_system(directory: Path) -> str:
    """Return the type of file system that a directory is on."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "?"
    return mounted(mounts.read_text(), str(directory.resolve()))


def mounted(mounts: str, directory: str) -> str:
    """Return the type of file system that a directory is on.

    :param mounts: the content of ``/proc/mounts``.
    :param directory: an absolute path.
    """
    found, longest = "?", 0
    for line in mounts.splitlines():
        place, kind = line.split()[1:3]
        # If several are mounted in one place, the last one counts.
        if len(place) >= longest and f"{directory}/".startswith(f"{place.rstrip('/')}/"):
            found, longest = kind, len(place)
    return found


def described(facts: Mapping[str, str]) -> str:
    """Format facts as a Markdown list."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "?")


def _installed(package: str) -> str:
    """Return a package's version, or an empty string if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _output(*command: str) -> str:
    """Return the first line that a program prints, or an empty string if it cannot be run."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return (done.stdout.strip() or done.stderr.strip()).partition("\n")[0]
