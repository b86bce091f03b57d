"""Every phase of the start, failing for every cause, through the real ``twistd``: what an operator sees."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.certificates import Authority, key_pem
from tests.support.servers import TWISTD, child_environment

pytestmark = pytest.mark.slow


@frozen
class Scene:
    """What the failing starts refer to.

    :param directory: where files are.
    :param taken: an address on which somebody else listens.
    """

    directory: Path
    taken: str

    def path(self, name: str) -> str:
        """The path of one of the files."""
        return str(self.directory / name)

    def tls(self, **changes: str) -> dict[str, str]:
        """Variables for a server with TLS, changed in some; a name in a value is a file of the scene."""
        mode = "mtls" if "client_ca_path" in changes else "tls"
        files = {"cert_path": "server.crt", "key_path": "server.key"} | changes
        variables = {f"DS_TRANSPORT__TLS__{name.upper()}": self.path(value) for name, value in files.items()}
        return variables | {"DS_TRANSPORT__MODE": mode}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Good files and bad ones, and an address that is taken."""
    directory = tmp_path_factory.mktemp("scene")
    authority = Authority(directory)
    authority.issue("server")
    authority.issue("other")
    (directory / "rubbish.toml").write_text("= =")
    (directory / "empty").touch()
    (directory / "directory").mkdir()
    (directory / "rubbish").write_text("-----BEGIN CERTIFICATE-----\nrubbish")
    (directory / "rubbish.key").write_text("-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n")
    (directory / "encrypted.key").write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Scene(directory, f"127.0.0.1:{listener.getsockname()[1]}")


@frozen
class Case:
    """One way not to start.

    :param phase: the phase that fails.
    :param cause: how the line goes on after the phase.
    :param variables: what makes it fail.
    :param arguments: what follows ``durable-streams``.
    """

    phase: str
    cause: Callable[[Scene], str]
    variables: Callable[[Scene], Mapping[str, str]] = lambda _: {}
    arguments: Callable[[Scene], list[str]] = lambda _: []


BEFORE_THE_FORK = {
    "file not found": Case(
        "load_config", lambda _: "configuration file not found: 'none.toml'", arguments=lambda _: ["-c", "none.toml"]
    ),
    "not TOML": Case("load_config", lambda _: "", arguments=lambda scene: ["-c", scene.path("rubbish.toml")]),
    "unknown key": Case("load_config", lambda _: "", lambda _: {"DS_SERVER__BIND_ADRESS": "x"}),
    "bad value": Case(
        "validate_config",
        lambda _: "server.bind_address = 'nowhere' (DS_SERVER__BIND_ADDRESS): ",
        lambda _: {"DS_SERVER__BIND_ADDRESS": "nowhere"},
    ),
    "TLS without a key": Case(
        "validate_config",
        lambda _: "transport.tls.key_path = ",
        lambda scene: {"DS_TRANSPORT__MODE": "tls", "DS_TRANSPORT__TLS__CERT_PATH": scene.path("server.crt")},
    ),
    "unknown endpoint": Case(
        "resolve_transport",
        lambda _: "'systemd:domain=INET:index=0' was not found: no such socket was inherited",
        lambda _: {"DS_SERVER__ENDPOINTS": "systemd:domain=INET:index=0"},
    ),
    "two kinds of TLS": Case(
        "resolve_transport",
        lambda _: "server.endpoints has 'ssl:443', which brings its own TLS",
        lambda scene: scene.tls() | {"DS_SERVER__ENDPOINTS": "ssl:443"},
    ),
    "no certificate file": Case(
        "check_tls_files",
        lambda scene: f"TLS file not found: {scene.path('none')}: the certificate must be an existing PEM file\n",
        lambda scene: scene.tls(cert_path="none"),
    ),
    "no key file": Case(
        "check_tls_files",
        lambda scene: f"TLS file not found: {scene.path('none')}: the private key must be",
        lambda scene: scene.tls(key_path="none"),
    ),
    "no client CA file": Case(
        "check_tls_files",
        lambda scene: f"TLS file not found: {scene.path('none')}: the client CA must be",
        lambda scene: scene.tls(client_ca_path="none"),
    ),
    "a directory": Case(
        "check_tls_files",
        lambda scene: f"TLS path is not a regular file: {scene.path('directory')}: ",
        lambda scene: scene.tls(cert_path="directory"),
    ),
    "no certificates": Case(
        "build_tls_context",
        lambda scene: f"failed to build TLS context: no certificates in {scene.path('empty')}: ",
        lambda scene: scene.tls(cert_path="empty"),
    ),
    "rubbish": Case(
        "build_tls_context",
        lambda scene: f"failed to build TLS context: unparsable certificate in {scene.path('rubbish')}: ",
        lambda scene: scene.tls(cert_path="rubbish"),
    ),
    "no key": Case(
        "build_tls_context",
        lambda scene: f"failed to build TLS context: no private key in {scene.path('empty')}: ",
        lambda scene: scene.tls(key_path="empty"),
    ),
    "rubbish key": Case(
        "build_tls_context",
        lambda scene: f"failed to build TLS context: unparsable private key in {scene.path('rubbish.key')}: ",
        lambda scene: scene.tls(key_path="rubbish.key"),
    ),
    "encrypted key": Case(
        "build_tls_context",
        lambda scene: f"failed to build TLS context: the private key in {scene.path('encrypted.key')} is encrypted: ",
        lambda scene: scene.tls(key_path="encrypted.key"),
    ),
    "another's key": Case(
        "build_tls_context",
        lambda scene: f"failed to build TLS context: the private key in {scene.path('other.key')} doesn't belong",
        lambda scene: scene.tls(key_path="other.key"),
    ),
    "no CA certificates": Case(
        "build_tls_context",
        lambda scene: f"failed to build TLS context: no CA certificates in {scene.path('empty')}: ",
        lambda scene: scene.tls(client_ca_path="empty"),
    ),
    "bad CA certificate": Case(
        "build_tls_context",
        lambda scene: f"failed to build TLS context: bad CA certificate in {scene.path('other.crt')}: ",
        lambda scene: scene.tls(client_ca_path="other.crt"),
    ),
}
"""Seen before the server becomes a daemon."""

AFTER_THE_FORK = {
    "address taken": Case(
        "bind_listener",
        lambda scene: f"failed to bind {scene.taken}: Address already in use\n",
        lambda scene: {"DS_SERVER__BIND_ADDRESS": scene.taken},
    ),
    "the second of two": Case(
        "bind_listener",
        lambda scene: f"failed to bind unix:{scene.path('none/s')}: ",
        lambda scene: {"DS_SERVER__ENDPOINTS": f"tcp:0:interface=127.0.0.1,unix:{scene.path('none/s')}"},
    ),
    "storage": Case(
        "start_server",
        lambda _: "failed to open file-durable storage: ",
        lambda scene: {"DS_STORAGE__MODE": "file-durable", "DS_STORAGE__DATA_DIR": scene.path("empty")},
    ),
}
"""Seen by a daemon that has already left its terminal."""

Ended = subprocess.CompletedProcess[str]


def run_all(cases: Mapping[str, Case], scene: Scene, directory: Path, *options: str) -> dict[str, Ended]:
    """Run twistd for each case, as many at a time as there are processors."""

    def run(name: str) -> Ended:
        case, home = cases[name], directory / name
        home.mkdir()
        return subprocess.run(
            [str(TWISTD), "--pidfile=", *options, "durable-streams", *case.arguments(scene)],
            cwd=home,
            env=child_environment(**({"DS_SERVER__BIND_ADDRESS": "127.0.0.1:0"} | dict(case.variables(scene)))),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return dict(zip(cases, pool.map(run, cases), strict=True))


def faults(name: str, case: Case, scene: Scene, ended: Ended) -> list[str]:
    """What is wrong with how it ended: it should be one line, and status 1."""
    line = f"[{case.phase}] {case.cause(scene)}"
    wrong = []
    if ended.returncode != 1:
        wrong.append(f"{name}: status {ended.returncode}")
    if not (ended.stderr.startswith(line) and ended.stderr.count("\n") == 1 and ended.stderr.endswith("\n")):
        wrong.append(f"{name}: stderr is {ended.stderr!r}, not {line!r}")
    if "Traceback" in ended.stdout:
        wrong.append(f"{name}: stdout has a traceback")
    return wrong


class StartupPhaseTests:
    """One line that names the phase and the cause, on the terminal, and status 1."""

    def test_foreground(self, scene: Scene, tmp_path: Path) -> None:
        """In the foreground that is so in every phase."""
        cases = BEFORE_THE_FORK | AFTER_THE_FORK
        ended = run_all(cases, scene, tmp_path, "-n")
        assert [fault for name in cases for fault in faults(name, cases[name], scene, ended[name])] == []

    def test_daemon_before_the_fork(self, scene: Scene, tmp_path: Path) -> None:
        """A server that is to be a daemon says so before it is one, and leaves nothing behind."""
        ended = run_all(BEFORE_THE_FORK, scene, tmp_path)
        cases = BEFORE_THE_FORK
        assert [fault for name in cases for fault in faults(name, cases[name], scene, ended[name])] == []
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    def test_daemon_after_the_fork(self, scene: Scene, tmp_path: Path) -> None:
        """Later, twistd tells the beginning in a notice of its own, and the log has the whole line."""
        ended = run_all(AFTER_THE_FORK, scene, tmp_path)
        for name, case in AFTER_THE_FORK.items():
            line = f"[{case.phase}] {case.cause(scene)}".strip()
            assert ended[name].returncode == 1
            assert line[:40] in ended[name].stderr
            assert line in (tmp_path / name / "twistd.log").read_text()
