"""Exporting from running servers and importing into them."""

from __future__ import annotations

import base64
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3

from dstreams.cli import main
from dstreams.runtime.progress import silently
from dstreams.storage.snapshot import open_snapshot
from dstreams.transfer.directory import DirectoryStreams
from tests.support.certificates import Authority
from tests.support.servers import ChildServer, twistd_server
from tests.transfer.stores import MODES, Document, document, export, filled, import_, payloads, stream

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ChildServer]:
    """A server that keeps its streams in memory."""
    (tmp_path / "server").mkdir()
    with twistd_server(tmp_path / "server") as running:
        yield running


def url(server: ChildServer) -> str:
    return f"{server.url}/v1/stream"


def send(server: ChildServer, method: str, name: str, body: bytes = b"", **headers: str) -> urllib3.BaseHTTPResponse:
    """Send a request; header names are written with underscores."""
    with urllib3.PoolManager(retries=False) as pool:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return pool.request(method, f"{url(server)}/{name}", body=body, headers={"Content-Type": "text/plain"} | named)


def export_from(server: ChildServer, path: Path, *arguments: str) -> Document:
    """The document of a server's streams."""
    assert main(["export", "--url", url(server), "-o", str(path), *arguments]) == 0
    found: Document = json.loads(path.read_bytes())
    return found


def import_into(server: ChildServer, path: Path, given: Document, *arguments: str) -> int:
    path.write_text(json.dumps(given))
    return main(["import", "--url", url(server), "-i", str(path), *arguments])


def named(given: Document) -> list[str]:
    """The options that name all streams of a document."""
    return [word for each in given["streams"] for word in ("--stream", each["name"])]


def joined(given: Document) -> dict[str, tuple[object, ...]]:
    """What the protocol can tell of the streams of a document."""
    return {
        each["name"]: (
            payloads(given)[each["name"]].replace(b"|", b"")
            if "json" not in each["config"]["content_type"]
            else payloads(given)[each["name"]],
            each["next_offset"],
            each["closed"],
            each["config"]["content_type"],
            each["config"]["ttl_seconds"],
            each["config"]["expires_at"],
            each["dstreams"].get("content_type"),
        )
        for each in given["streams"]
    }


class MemoryTests:
    """A server in memory has no directory: the way is through the server."""

    @pytest.mark.parametrize("mode", MODES)
    def test_round_trip(self, tmp_path: Path, server: ChildServer, mode: str) -> None:
        """From every mode into memory and back, every byte, offset, type, closure and expiry is the same."""
        filled(MODES[mode](tmp_path / "a"))
        first = export(tmp_path / "a")
        assert import_into(server, tmp_path / "in.json", first) == 0
        second = export_from(server, tmp_path / "out.json", *named(first))
        assert joined(second) == joined(first)
        import_(second, MODES[mode](tmp_path / "b"))
        third = export(tmp_path / "b")
        assert joined(third) == joined(first)

    def test_forks_share(self, tmp_path: Path, server: ChildServer) -> None:
        """Forks that are imported into a server share their source's bytes there."""
        filled(MODES["acid"](tmp_path / "a"))
        first = export(tmp_path / "a", "logs/text", "a fork of text", "fork of fork", "json", "json/fork")
        assert import_into(server, tmp_path / "in.json", first) == 0
        assert send(server, "DELETE", "logs/text").status == 204
        assert send(server, "GET", "logs/text").status == 410  # it stays for its forks

    def test_large(self, tmp_path: Path, server: ChildServer) -> None:
        """Streams of many answers' size come in pieces, and are the same afterwards."""
        data = os.urandom(9_000_000)
        numbers = b"[" + b",".join(b"%d" % number for number in range(900_000)) + b"]"
        send(server, "PUT", "binary", data)
        send(server, "PUT", "numbers", numbers, Content_Type="application/json")
        found = export_from(server, tmp_path / "out.json", "--stream", "binary", "--stream", "numbers")
        by_name = {each["name"]: each for each in found["streams"]}
        pieces = [base64.b64decode(each["data_base64"]) for each in by_name["binary"]["messages"]]
        assert b"".join(pieces) == data
        assert by_name["numbers"]["message_count"] == 900_000
        send(server, "DELETE", "binary")
        send(server, "DELETE", "numbers")
        assert import_into(server, tmp_path / "in.json", found) == 0
        again = export_from(server, tmp_path / "out.json", "--stream", "binary", "--stream", "numbers")
        assert joined(again) == joined(found)


class ConflictTests:
    """Streams that a server has already."""

    def test_skip(self, tmp_path: Path, server: ChildServer, capsys: pytest.CaptureFixture[str]) -> None:
        """By default they are kept; a deleted one whose name is kept for forks counts too."""
        send(server, "PUT", "a", b"old")
        send(server, "PUT", "gone", b"old")
        send(server, "PUT", "fork", Stream_Forked_From="gone")
        send(server, "DELETE", "gone")
        given = document(stream("a", b"new"), stream("b", b"new"), stream("gone"))
        assert import_into(server, tmp_path / "in.json", given) == 0
        assert send(server, "GET", "a").data == b"old"
        assert send(server, "GET", "b").data == b"new"
        said = capsys.readouterr().err
        assert "Skipping existing stream: a\nSkipping existing stream: gone\n" in said
        assert "Imported 1 stream(s), skipped 2, 1 message(s) total" in said

    def test_fail(self, tmp_path: Path, server: ChildServer, capsys: pytest.CaptureFixture[str]) -> None:
        """Nothing is imported when one of them is there."""
        send(server, "PUT", "b", b"old")
        given = document(stream("a", b"new"), stream("b", b"new"))
        assert import_into(server, tmp_path / "in.json", given, "--on-conflict", "fail") == 1
        assert "stream 'b' already exists" in capsys.readouterr().err
        assert send(server, "GET", "a").status == 404

    def test_replace(self, tmp_path: Path, server: ChildServer, capsys: pytest.CaptureFixture[str]) -> None:
        """The protocol can't replace in one step, so nothing is replaced."""
        send(server, "PUT", "a", b"old")
        assert import_into(server, tmp_path / "in.json", document(stream("a")), "--on-conflict", "replace") == 1
        assert "cannot replace a stream in one step" in capsys.readouterr().err
        assert send(server, "GET", "a").data == b"old"

    def test_limit(self, tmp_path: Path, server: ChildServer, capsys: pytest.CaptureFixture[str]) -> None:
        """What the server refuses is told in its words, and no part of that stream is left."""
        given = document(stream("a", b"x"), stream("b", b"x" * 10_485_761))
        assert import_into(server, tmp_path / "in.json", given) == 1
        said = capsys.readouterr().err
        assert "stream 'b' was not stored: the server answered 413 Stream size limit exceeded" in said
        assert "1 stream(s) were stored before it" in said
        assert send(server, "GET", "b").status == 404


class ListingTests:
    """Finding the streams of a server."""

    def test_no_listing(self, server: ChildServer, capsys: pytest.CaptureFixture[str]) -> None:
        """Without names and admin listing there is nothing to go by; the operator is told what to give."""
        assert main(["list", "--url", url(server)]) == 1
        assert "name them with --stream, or give --admin-url" in capsys.readouterr().err

    def test_named(self, server: ChildServer, capsys: pytest.CaptureFixture[str]) -> None:
        """Streams that are named are listed from what every client can see, and keep their TTL."""
        send(server, "PUT", "a%20b", b"12345", Stream_TTL="100", Stream_Closed="true")
        assert main(["list", "--json", "--url", url(server), "--stream", "a b"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [(each["name"], each["status"], each["total_bytes"], each["ttl_seconds"]) for each in found] == [
            ("a b", "closed", 5, 100)
        ]
        assert main(["list", "--url", url(server), "--stream", "c"]) == 1
        assert "there is no stream 'c'" in capsys.readouterr().err

    def test_every_stream(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The admin listing finds all streams of a server, as a listing of its directory does."""
        filled(MODES["file-fast"](tmp_path / "store"))
        keys = {
            "DS_STORAGE__MODE": "file-fast",
            "DS_STORAGE__DATA_DIR": str(tmp_path / "store"),
            "DS_ADMIN__ENDPOINT": "127.0.0.1:0",
        }
        with twistd_server(tmp_path, environ=keys) as server:
            found = re.search(r"admin pages: (http://127\.0\.0\.1:\d+)/", server.log.read_text())
            assert found is not None
            admin_url = f"{found[1]}/admin"
            assert main(["list", "--json", "--url", url(server), "--admin-url", admin_url]) == 0
            listed = json.loads(capsys.readouterr().out)
            through = export_from(server, tmp_path / "out.json", "--admin-url", admin_url)
        of_directory = export(tmp_path / "store", now=time.time())
        assert joined(through) == joined(of_directory)
        times = ("created_at", "updated_at")
        for each, other in zip(through["streams"], of_directory["streams"], strict=True):
            assert [each[name] for name in times] == [other[name] for name in times]
            assert ("fork" in each["dstreams"]) == ("fork" in other["dstreams"])
        with open_snapshot(str(tmp_path / "store"), silently) as snapshot:
            streams = DirectoryStreams(snapshot.catalog, snapshot.sources, time.time())
            assert listed == [streams.listed(name).members for name in streams.names()]

    def test_admin_listing(self, tmp_path: Path, server: ChildServer, capsys: pytest.CaptureFixture[str]) -> None:
        """The admin listing names all streams, page by page, and knows more of each."""
        send(server, "PUT", "a", b"one")
        send(server, "PUT", "b/ü".encode().hex(), b"")
        send(server, "PUT", "fork", b"own", Stream_Forked_From="a")
        pages = [
            [entry("a", bytes=3, messages=1, updated_at="2027-01-15T08:00:01.000Z")],
            [],
            [entry("fork", bytes=3, messages=1, forked_from="a", fork_offset="0000000000000000_0000000000000003")],
            [entry("vanished")],
        ]
        with admin_listing(pages) as admin_url:
            assert main(["list", "--url", url(server), "--admin-url", admin_url]) == 0
            listed = capsys.readouterr().out
            found = export_from(server, tmp_path / "out.json", "--admin-url", admin_url)
        assert listed.endswith("\n3 stream(s) total\n")
        assert "2027-01-15 08:00:00    2027-01-15 08:00:01" in listed
        # One that has ended since it was listed is left out.
        assert [each["name"] for each in found["streams"]] == ["a", "fork"]
        assert found["streams"][0]["updated_at"] == "2027-01-15T08:00:01.000Z"
        assert found["streams"][1]["dstreams"]["fork"]["source"] == "a"
        assert payloads(found)["fork"] == b"one|own"
        # So it is a fork again.
        import_(found, MODES["file-fast"](tmp_path / "b"))
        assert export(tmp_path / "b")["streams"][1]["dstreams"]["fork"]["source"] == "a"

    @pytest.mark.parametrize("pages", [[[{"name": "a"}]], [["a"]]])
    def test_other_listing(self, pages: list[Any], server: ChildServer, capsys: pytest.CaptureFixture[str]) -> None:
        """A listing of another kind is told from the admin listing, in a line."""
        with admin_listing(pages) as admin_url:
            assert main(["list", "--url", url(server), "--admin-url", admin_url]) == 1
        assert capsys.readouterr().err.endswith(" is not the admin listing of this server\n")


class TransportTests:
    """Ways to a server, and none."""

    @pytest.mark.parametrize(
        "given", ["localhost:4437/v1/stream", "ftp://localhost/v1/stream", "http://", "http://a/?b"]
    )
    def test_no_url(self, given: str, capsys: pytest.CaptureFixture[str]) -> None:
        """A URL that can't be asked is refused at once."""
        assert main(["list", "--url", given, "--stream", "a"]) == 1
        assert "must be a URL such as http://127.0.0.1:4437/v1/stream" in capsys.readouterr().err

    def test_nobody(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Where nobody listens, that is said in a line."""
        assert main(["list", "--url", "http://127.0.0.1:1/v1/stream", "--stream", "a"]) == 1
        said = capsys.readouterr().err
        assert said.startswith("durable-streams list: no answer from http://127.0.0.1:1/v1/stream/a: ")
        assert said.count("\n") == 1

    def test_tls(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A server with TLS is trusted by its authority only, and is shown a certificate when it asks for one."""
        authority = Authority(tmp_path)
        mine, theirs = authority.issue("client", client=True), authority.issue("localhost")
        keys = {
            "DS_TRANSPORT__MODE": "mtls",
            "DS_TRANSPORT__TLS__CERT_PATH": str(theirs.certificate),
            "DS_TRANSPORT__TLS__KEY_PATH": str(theirs.key),
            "DS_TRANSPORT__TLS__CLIENT_CA_PATH": str(authority.path),
        }
        with twistd_server(tmp_path, environ=keys) as server:
            where = ["--url", f"https://localhost:{server.port}/v1/stream", "--stream", "a"]
            assert main(["list", *where]) == 1
            assert "certificate verify failed" in capsys.readouterr().err
            shown = ["--cacert", str(authority.path), "--cert", str(mine.certificate), "--key", str(mine.key)]
            assert main(["list", *where, *shown]) == 1
            assert "there is no stream 'a'" in capsys.readouterr().err


def entry(name: str, **more: Any) -> dict[str, Any]:
    """A stream as the admin listing has it."""
    return {
        "name": name,
        "content_type": "text/plain",
        "closed": False,
        "next_offset": "0000000000000000_0000000000000000",
        "bytes": 0,
        "messages": 0,
        "created_at": "2027-01-15T08:00:00.000Z",
        "updated_at": "2027-01-15T08:00:00.000Z",
        "ttl_seconds": None,
        "expires_at": None,
        "forked_from": None,
        "fork_offset": None,
        "forks": 0,
    } | more


class admin_listing:  # noqa: N801 (used in a with statement)
    """An admin listener that has these pages."""

    def __init__(self, pages: list[list[dict[str, Any]]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert urlsplit(self.path).path == "/admin/streams"
                number = int(parse_qs(urlsplit(self.path).query).get("after", ["0"])[0])
                following = str(number + 1) if number + 1 < len(pages) else None
                body = json.dumps({"streams": pages[number], "next": following}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}/admin"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
