"""The commands that list, export and import streams."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dstreams.cli import main
from dstreams.storage.directory import DirectoryLock
from tests.support.servers import TWISTD, child_environment, child_server, twistd_server
from tests.transfer.stores import MODES, Document, document, export, filled, import_, payloads, stream


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory that is configured; it isn't there yet."""
    for name in [name for name in os.environ if name.startswith("DS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DS_STORAGE__MODE", "file-durable")
    monkeypatch.setenv("DS_STORAGE__DATA_DIR", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def used(directory: Path) -> Path:
    """A store with two streams."""
    import_(document(stream("a", b"one", b"two"), stream("b", closed=True)), MODES["file-durable"](directory))
    return directory


def write(path: Path, given: Document) -> str:
    path.write_text(json.dumps(given))
    return str(path)


class ListTests:
    """``durable-streams list``."""

    def test_table(self, used: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """All streams are listed, in the order of their names."""
        assert main(["list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[:3] for line in lines[2:4]] == [["a", "open", "2"], ["b", "closed", "0"]]
        assert lines[-1] == "2 stream(s) total"

    def test_json(self, used: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """With --json they are a JSON array; --stream chooses."""
        assert main(["list", "--json", "--stream", "b"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [(each["name"], each["status"], each["message_count"]) for each in found] == [("b", "closed", 0)]

    def test_options_anywhere(self, used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The configuration may be named before the command and after it."""
        monkeypatch.delenv("DS_STORAGE__DATA_DIR")
        monkeypatch.delenv("DS_STORAGE__MODE")
        config = used.parent / "my.toml"
        config.write_text(f'[storage]\nmode = "file-fast"\ndata_dir = "{used}"\n')
        assert main(["--config", str(config), "list", "--stream", "a"]) == 0
        assert main(["list", "--stream", "a", "--config", str(config)]) == 0

    def test_changes_nothing(self, used: Path) -> None:
        """Neither a listing nor an export changes a file of the store."""

        def files() -> dict[str, bytes]:
            return {str(path): path.read_bytes() for path in used.rglob("*") if path.is_file() and path.name != "lock"}

        before = files()
        assert main(["list"]) == 0
        assert main(["export", "-o", os.devnull]) == 0
        assert files() == before


class RefusedTests:
    """What an operator is told when a command can't be done."""

    @pytest.mark.parametrize("command", ["list", "export"])
    def test_no_store(self, command: str, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A directory that is no store is named, and not made one."""
        assert main([command]) == 1
        said = capsys.readouterr()
        assert said.err == f"durable-streams {command}: {directory} is not a data directory: it has no store.json\n"
        assert said.out == ""
        assert not directory.exists()

    @pytest.mark.parametrize("command", ["list", "export", "import"])
    def test_in_use(
        self, command: str, used: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A directory that a server uses isn't touched; the operator is told the way through the server."""
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"not read")))
        lock = DirectoryLock()
        lock.acquire(str(used))
        try:
            assert main([command]) == 1
        finally:
            lock.release()
        assert capsys.readouterr().err == (
            f"durable-streams {command}: {used} is in use by process {os.getpid()}: use --url to go through that"
            " server\n"
        )

    @pytest.mark.parametrize("command", ["list", "export", "import"])
    def test_memory(
        self, command: str, directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server in memory leaves nothing to read, and would take nothing."""
        monkeypatch.setenv("DS_STORAGE__MODE", "memory")
        assert main([command]) == 1
        assert "the configured storage is in memory" in capsys.readouterr().err

    @pytest.mark.parametrize("command", ["list", "export", "import"])
    def test_configuration(
        self, command: str, directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A wrong configuration is told as the server tells it."""
        monkeypatch.setenv("DS_STORAGE__MODE", "tape")
        assert main([command]) == 1
        assert "storage.mode" in capsys.readouterr().err

    def test_files(self, used: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Files that can't be read or written are named."""
        assert main(["import", "-i", str(used.parent / "none.json")]) == 1
        assert "none.json" in capsys.readouterr().err
        assert main(["export", "-o", str(used.parent / "none" / "out.json")]) == 1
        assert "out.json" in capsys.readouterr().err

    def test_admin_alone(self, used: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The admin listing is asked together with the server."""
        assert main(["list", "--admin-url", "http://127.0.0.1:9090/admin"]) == 1
        assert "--admin-url needs --url" in capsys.readouterr().err


class ExportTests:
    """``durable-streams export``."""

    def test_file(self, used: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The document is in the file, for its owner only, and stderr says how much it is."""
        path = used.parent / "out.json"
        assert main(["export", "-o", str(path)]) == 0
        assert capsys.readouterr().err == "Exported 2 stream(s) with 2 message(s)\n"
        assert payloads(json.loads(path.read_bytes())) == {"a": b"one|two", "b": b""}
        assert path.stat().st_mode & 0o777 == 0o600
        assert sorted(used.parent.iterdir()) == [path, used]

    @pytest.mark.slow
    def test_stdout(self, used: Path) -> None:
        """Without a file the document is all that is printed."""
        ended = subprocess.run(
            [sys.executable, "-m", "dstreams.cli", "export", "--stream", "a"],
            env=child_environment(DS_STORAGE__MODE="file-durable", DS_STORAGE__DATA_DIR=str(used)),
            capture_output=True,
            check=True,
        )
        assert payloads(json.loads(ended.stdout)) == {"a": b"one|two"}
        assert ended.stderr == b""

    def test_unknown(self, used: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A stream that doesn't exist is an error, and an older document stays what it was."""
        path = used.parent / "out.json"
        path.write_text("older")
        assert main(["export", "--stream", "a", "--stream", "c", "-o", str(path)]) == 1
        assert capsys.readouterr().err == "durable-streams export: there is no stream 'c'\n"
        assert path.read_text() == "older"
        assert sorted(used.parent.iterdir()) == [path, used]

    def test_terminated(self, used: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """SIGTERM in the middle ends an export as Ctrl-C does: what was there stays, and nothing else is left."""

        def killed(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        path = used.parent / "out.json"
        path.write_text("older")
        before = signal.getsignal(signal.SIGTERM)
        monkeypatch.setattr("dstreams.cli.exporting.export_streams", killed)
        assert main(["export", "-o", str(path)]) == 1
        assert capsys.readouterr().err == "durable-streams export: interrupted\n"
        assert path.read_text() == "older"
        assert sorted(used.parent.iterdir()) == [path, used]
        assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.slow
    def test_reader_goes_away(self, directory: Path) -> None:
        """When who reads the output has seen enough, the export ends without complaint."""
        import_(document(stream("a", b"x" * 1_000_000)), MODES["file-durable"](directory))
        with subprocess.Popen(
            [sys.executable, "-m", "dstreams.cli", "export"],
            env=child_environment(DS_STORAGE__MODE="file-durable", DS_STORAGE__DATA_DIR=str(directory)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == b"{\n"
            process.stdout.close()
            assert process.wait(60) == 1
            assert process.stderr.read() == b""


class ImportTests:
    """``durable-streams import``."""

    @pytest.mark.parametrize("mode", MODES)
    def test_file(
        self, mode: str, directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A document becomes a store of the configured mode."""
        monkeypatch.setenv("DS_STORAGE__MODE", mode)
        filled(MODES["acid"](directory.parent / "other"))
        given = export(directory.parent / "other")
        assert main(["import", "-i", write(directory.parent / "in.json", given)]) == 0
        assert capsys.readouterr().err == "Imported 17 stream(s), skipped 0, 36 message(s) total\n"
        assert payloads(export(directory)) == payloads(given)

    def test_stdin(self, used: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a file the document comes from stdin; what is there is skipped, stream by stream."""
        given = json.dumps(document(stream("a", b"new"), stream("c", b"new"))).encode()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        assert main(["import"]) == 0
        assert capsys.readouterr().err == (
            "Skipping existing stream: a\nImported 1 stream(s), skipped 1, 1 message(s) total\n"
        )
        assert payloads(export(used)) == {"a": b"one|two", "b": b"", "c": b"new"}

    def test_names_for_terminals(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """What a terminal might obey in a name is escaped, in every command that shows one."""
        path = write(directory.parent / "in.json", document(stream("a\u202eb", b"x"), stream("c\u200bd")))
        assert main(["import", "-i", path]) == 0
        assert main(["import", "-i", path]) == 0
        assert main(["import", "--on-conflict", "fail", "-i", path]) == 1
        assert main(["export", "--stream", "\u202e"]) == 1
        assert main(["list"]) == 0
        shown = capsys.readouterr()
        assert shown.err.count("a\\u202eb") == 2
        assert "no stream '\\u202e'" in shown.err
        assert "\na\\u202eb " in shown.out
        assert all(line.isprintable() for line in (shown.err + shown.out).split("\n"))

    def test_conflicts(self, used: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """--on-conflict says what becomes of streams that are there."""
        path = write(used.parent / "in.json", document(stream("a", b"new"), stream("c", b"new")))
        assert main(["import", "--on-conflict", "fail", "-i", path]) == 1
        assert capsys.readouterr().err == (
            "durable-streams import: nothing was imported:\n  stream 'a' already exists\n"
        )
        assert main(["import", "--on-conflict", "replace", "-i", path]) == 0
        assert payloads(export(used)) == {"a": b"new", "b": b"", "c": b"new"}

    def test_limits(self, used: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """The configured limits hold for names, streams and all streams together."""
        path = write(used.parent / "in.json", document(stream("abcdef", b"123456")))
        for key, value, said in [
            ("MAX_STREAM_NAME_BYTES", "5", "the stream name has 6 bytes"),
            ("MAX_STREAM_BYTES", "5", "has 6 bytes; limits.max_stream_bytes allows 5"),
            # 12 bytes, and the fixed charges for three streams and their messages.
            ("MAX_DISK_BYTES", "3145", "would have 3146 bytes; the configuration allows 3145"),
        ]:
            with monkeypatch.context() as patch:
                patch.setenv(f"DS_LIMITS__{key}", value)
                assert main(["import", "-i", path]) == 1
            assert said.lower() in capsys.readouterr().err.lower()
        assert set(payloads(export(used))) == {"a", "b"}


@pytest.mark.slow
class ServeTests:
    """``durable-streams serve``."""

    def test_serve(self, tmp_path: Path) -> None:
        """The server runs in the foreground, as the options before and after the command say."""
        (tmp_path / "my.toml").write_text('[storage]\nmode = "file-fast"\ndata_dir = "here"\n')
        command = [sys.executable, "-m", "dstreams.cli", "--config", "my.toml", "serve", "--profile", "dev"]
        with child_server(tmp_path, command, {"DS_SERVER__BIND_ADDRESS": "127.0.0.1:0"}) as server:
            assert (tmp_path / "here" / "store.json").exists()
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(60) == 0
        assert not (tmp_path / "twistd.pid").exists()

    def test_beside_a_server(self, tmp_path: Path) -> None:
        """A running server keeps commands out of its directory, and isn't disturbed."""
        keys = {"DS_STORAGE__MODE": "file-durable", "DS_STORAGE__DATA_DIR": str(tmp_path / "store")}
        assert TWISTD.exists()
        with twistd_server(tmp_path, environ=keys) as server:
            ended = subprocess.run(
                [sys.executable, "-m", "dstreams.cli", "list"],
                env=child_environment(**keys),
                capture_output=True,
                check=False,
            )
        assert ended.returncode == 1
        assert f"is in use by process {server.process.pid}: use --url".encode() in ended.stderr
