"""More clients than descriptors."""

from __future__ import annotations

import re
import select
import socket
import ssl
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.servers import TWISTD, ChildServer, child_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long_turns(reason="hundreds of clients act at once, and libuv hands out all ready sockets in one turn"),
]

DESCRIPTORS = 256
CLIENTS = 400

_LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
os.execv(sys.argv[2], sys.argv[2:])
"""

_INHERITING = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
os.dup2(listener.fileno(), 9)
os.dup2(9, 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
"""

_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


def limited(reactor: str) -> list[str]:
    """The command of a server that has few descriptors."""
    twistd = [str(TWISTD), "--pidfile=", "-n", f"--reactor={reactor}", "durable-streams"]
    return [sys.executable, "-c", _LIMITED, str(DESCRIPTORS), *twistd]


def admin_answers(server: ChildServer) -> str:
    """The metrics, from a connection of their own; fails when the admin listener doesn't answer soon."""
    match = re.search(r"admin pages: (http://\S+)/$", server.log.read_text(), re.MULTILINE)
    assert match is not None
    with urllib.request.urlopen(f"{match[1]}/healthz", timeout=10) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(f"{match[1]}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def sample(metrics: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", metrics, re.MULTILINE)
    assert found is not None
    return float(found[1])


def answered(clients: Sequence[socket.socket], enough: int, seconds: float = 30) -> set[socket.socket]:
    """The clients that have an answer, once these are as many as is enough; fails when one is cut."""
    poll, by_number = select.poll(), {client.fileno(): client for client in clients}
    for number in by_number:
        poll.register(number, select.POLLIN)
    served: set[socket.socket] = set()
    deadline = time.monotonic() + seconds
    while len(served) < enough and time.monotonic() < deadline:
        for number, _ in poll.poll(100):
            answer = by_number[number].recv(4096)
            assert answer.startswith(b"HTTP/1.1 200 OK"), "a client that waits was cut"
            served.add(by_number[number])
            poll.unregister(number)
    return served


@pytest.mark.parametrize("reactor", ["uvloop", "epoll", "asyncio"])
def test_more_clients_than_descriptors(tmp_path: Path, reactor: str) -> None:
    """As many as there is room for are served and the others wait, on every port; operators are answered all the time;
    and when half of the clients leave, others are served in their place.
    """
    if reactor == "uvloop":
        pytest.importorskip("uvloop")
    endpoint = "tcp:0:interface=127.0.0.1:backlog="
    environ = {
        "DS_SERVER__ENDPOINTS": f"{endpoint}1024,{endpoint}1000",
        "DS_ADMIN__ENDPOINT": "127.0.0.1:0",
        "DS_STORAGE__MODE": "file-durable",
    }
    with child_server(tmp_path, limited(reactor), environ) as server:
        limit = int(sample(admin_answers(server), "dstreams_http_connections_limit"))
        assert 64 <= limit < 150
        one, two = re.findall(r"listening on 127\.0\.0\.1:(\d+)$", server.log.read_text(), re.MULTILINE)
        clients = [socket.create_connection(("127.0.0.1", int(one)), 30) for _ in range(CLIENTS)]
        clients.append(socket.create_connection(("127.0.0.1", int(two)), 30))
        for client in clients:
            client.sendall(_REQUEST)
        first = answered(clients, limit)
        assert len(first) == limit
        waiting = [client for client in clients if client not in first]
        assert answered(waiting, 1, seconds=0.5) == set()
        metrics = admin_answers(server)
        assert sample(metrics, "dstreams_http_connections_full_total") >= 1
        assert sample(metrics, "process_open_fds") < DESCRIPTORS
        # Half of those that are served leave, and half of those that wait.
        leaving = [*list(first)[::2], *waiting[: CLIENTS // 4]]
        for client in leaving:
            client.close()
        admin_answers(server)
        waiting = waiting[CLIENTS // 4 :]
        second = answered(waiting, (limit + 1) // 2)
        assert len(second) == (limit + 1) // 2
        for client in first | second:
            client.close()
        waiting = [client for client in waiting if client not in second]
        assert answered(waiting, min(limit, len(waiting)))
        admin_answers(server)
        assert server.log.read_text().count(f"{limit} connections are open") == 1
        for client in clients:
            client.close()


def test_clients_over_tls(tmp_path: Path) -> None:
    """A client that waits can't even begin its handshake, one that is in the middle of it counts; and so it is with a
    socket that systemd has opened.
    """
    identity = Authority(tmp_path).issue("server")
    environ = {
        "DS_SERVER__MAX_CONNECTIONS": "3",
        "DS_SERVER__ENDPOINTS": "systemd:domain=INET:index=0",
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "http",
        "DS_TRANSPORT__MODE": "tls",
        "DS_TRANSPORT__HTTP__VERSIONS": "http1,http2",
        "DS_TRANSPORT__TLS__CERT_PATH": str(identity.certificate),
        "DS_TRANSPORT__TLS__KEY_PATH": str(identity.key),
    }
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    command = [sys.executable, "-c", _INHERITING, str(TWISTD), "--pidfile=", "-n", "durable-streams"]
    with child_server(tmp_path, command, environ) as server:
        address = ("127.0.0.1", server.port)
        silent = socket.create_connection(address, 30)
        secured = [context.wrap_socket(socket.create_connection(address, 30)) for _ in range(2)]
        with pytest.raises(TimeoutError):
            context.wrap_socket(socket.create_connection(address, 0.5))
        silent.close()
        late = context.wrap_socket(socket.create_connection(address, 30))
        late.sendall(_REQUEST)
        assert late.recv(4096).startswith(b"HTTP/1.1 200 OK")
        for each in (*secured, late):
            each.close()
