"""The servers to compare with: their location, version and installation.

Run ``python -m bench.peers`` from the checkout (``make bench-peers``): it builds the two Rust servers with
cargo and installs the Node server with npm, each into its own folder in ``bench/.peers``. Installed servers
are skipped, and those that cannot be installed are reported. Both Rust crates install a program of the same name, so
they cannot share a folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from attrs import frozen

HOME = Path(__file__).resolve().parent / ".peers"
"""The folder in which they are installed."""

HOME_VARIABLE = "DS_BENCH_PEERS"
"""The environment variable that names another such folder."""

_PROGRAM = Path("bin", "durable-streams-server")


@frozen
class Peer:
    """A server by somebody else.

    :param folder: its folder in the folder of peers.
    :param package: its name at crates.io or npm, and ``version`` the version to compare with.
    :param program: a path below ``folder`` that exists if the server is installed.
    """

    folder: str
    package: str
    version: str
    program: Path

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.package} {self.version}"

    @property
    def is_npm(self) -> bool:
        """Whether it is an npm package rather than a crate."""
        return self.package.startswith("@")

    def install_command(self, home: Path) -> list[str]:
        """Return the command that installs it into ``home``."""
        if self.is_npm:
            options = ["--no-audit", "--no-fund", "--prefix", str(home)]
            return ["npm", "install", *options, f"{self.package}@{self.version}"]
        root = str(home / self.folder)
        return ["cargo", "install", self.package, "--version", self.version, "--locked", "--root", root]

    def path(self) -> Path | None:
        """The installed program (for npm: the package), or ``None``."""
        for home in homes():
            found = home / self.folder / self.program
            if found.exists():
                return found
        return None


RUST_SERVER = Peer("rust-server", "durable-streams-server", "0.3.0", _PROGRAM)
ELECTRIC = Peer("electric", "durable-streams", "0.1.5", _PROGRAM)
NODE = Peer("node_modules", "@durable-streams/server", "0.3.7", Path("@durable-streams", "server"))

PEERS = (RUST_SERVER, ELECTRIC, NODE)


def homes() -> list[Path]:
    """Return the folders to search; the one that the environment names comes first."""
    named = os.environ.get(HOME_VARIABLE)
    return [*([Path(named)] if named else []), HOME]


def installed_version(peer: Peer, path: Path) -> str:
    """Return the installed version as the package manager has recorded it, or ``?``."""
    if peer.is_npm:
        version: str = json.loads((path / "package.json").read_text())["version"]
        return version
    note = path.parent.parent / ".crates.toml"
    crates = tomllib.loads(note.read_text())["v1"] if note.exists() else {}
    return next((words[1] for words in map(str.split, crates) if words[0] == peer.package), "?")


def install(peer: Peer, home: Path) -> str:
    """Install a server, unless it is installed.

    :return: the outcome, for people.
    """
    if peer.path() is not None:
        return f"is installed: {peer.path()}"
    command = peer.install_command(home)
    if shutil.which(command[0]) is None:
        return f"left out: there is no {command[0]}"
    sys.stderr.write(f"{' '.join(command)}\n")
    home.mkdir(parents=True, exist_ok=True)
    status = subprocess.run(command, check=False).returncode
    return "installed" if status == 0 else f"NOT installed: {command[0]} ended with status {status}"


def main() -> int:
    """Install all peers. Return the exit status: 0 if all of them are installed."""
    outcomes = [(peer, install(peer, HOME)) for peer in PEERS]
    for peer, outcome in outcomes:
        sys.stdout.write(f"{peer.title:32} {outcome}\n")
    return 0 if all(peer.path() is not None for peer in PEERS) else 1


if __name__ == "__main__":
    sys.exit(main())
