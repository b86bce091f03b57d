"""Configuration files."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstreams.config.toml_file import read_file


class TomlFileTests:
    """A file sets keys, each to exactly its type; everything wrong in it is found."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def values(self, text: str) -> dict[str, object]:
        """The values that a file sets; it must be free of problems."""
        Path("x.toml").write_text(text, encoding="utf-8")
        layer = read_file("x.toml")
        assert layer.problems == []
        return {path: setting.value for path, setting in layer.settings.items()}

    def problems(self, text: str | bytes) -> list[str]:
        """What is wrong with a file."""
        Path("x.toml").write_bytes(text.encode() if isinstance(text, str) else text)
        return [str(problem) for problem in read_file("x.toml").problems]

    def test_values(self) -> None:
        """Keys of every type and depth are read, in any of TOML's forms."""
        text = """
            transport.connection.long_poll_timeout_secs = 0x10
            http.cors_origins = ""
            server = { bind_address = "127.0.0.1:0" }
            [limits]
            max_stream_bytes = 1_000
        """
        assert self.values(text) == {
            "transport.connection.long_poll_timeout_secs": 16,
            "http.cors_origins": "",
            "server.bind_address": "127.0.0.1:0",
            "limits.max_stream_bytes": 1000,
        }

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            ('max_stream_bytes = "80"', "= '80' (file x.toml): must be a whole number, without quotes"),
            ("max_stream_bytes = 80.0", "= 80.0 (file x.toml): must be a whole number"),
            ("max_stream_bytes = true", "= true (file x.toml): must be a whole number"),
            ("max_stream_bytes = [80]", "= [80] (file x.toml): must be a whole number"),
            ("max_stream_bytes.x = 1", "= {'x': 1} (file x.toml): must be a whole number"),
            (
                "max_stream_bytes = 9223372036854775808",
                "= 9223372036854775808 (file x.toml): must be at most 9223372036854775807",
            ),
        ],
    )
    def test_numbers(self, line: str, why: str) -> None:
        """A number is a TOML integer."""
        assert self.problems(f"[limits]\n{line}") == [f"[load_config] limits.max_stream_bytes {why}"]

    @pytest.mark.parametrize("value", ["80", "true", "1979-05-27", "{}"])
    def test_strings(self, value: str) -> None:
        """A string is a TOML string."""
        (problem,) = self.problems(f"http.cors_origins = {value}")
        assert problem.endswith(" (file x.toml): must be a string")

    def test_booleans(self) -> None:
        """A boolean is a TOML boolean; in quotes it is a string."""
        (problem,) = self.problems('http.allow_wildcard_cors = "true"')
        assert problem.endswith(" = 'true' (file x.toml): must be true or false, without quotes")

    @pytest.mark.parametrize("word", ["Public", "shared", ""])
    def test_words(self, word: str) -> None:
        """A word is lower-case and one of the known ones."""
        assert self.problems(f'http.cache = "{word}"') == [
            f"[load_config] http.cache = '{word}' (file x.toml): must be one of no-store, private, public"
        ]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            (
                "[server]\nbind_adress = 1",
                "server.bind_adress = 1 (file x.toml): unknown key; did you mean server.bind_address?",
            ),
            (
                "[server]\nlong_poll_timeout = 1",
                (
                    "server.long_poll_timeout = 1 (file x.toml): unknown key; did you mean"
                    " transport.connection.long_poll_timeout_secs?"
                ),
            ),
            ("qqqq = 1", "qqqq = 1 (file x.toml): unknown key; remove it"),
            ("[limts]\nx = 1", "unknown section [limts] (file x.toml): did you mean limits?"),
            (
                "'server.bind_address' = 1",
                "'server.bind_address' = 1 (file x.toml): unknown key; did you mean server.bind_address?",
            ),
            (
                "server = 3",
                "server = 3 (file x.toml): is a section, not a key; write [server] above its keys",
            ),
        ],
    )
    def test_unknown(self, text: str, problem: str) -> None:
        """Unknown keys and sections are refused with the nearest known one."""
        assert self.problems(text) == [f"[load_config] {problem}"]

    @pytest.mark.parametrize(
        ("value", "items"),
        [("[]", ()), ('["http1"]', ("http1",)), ('["h2", "http/1.1"]', ("http2", "http1")), ('["3"]', ("http3",))],
    )
    def test_lists(self, value: str, items: tuple[str, ...]) -> None:
        """A list is a TOML array of strings; words may have other spellings."""
        assert self.values(f"transport.http.versions = {value}") == {"transport.http.versions": items}

    @pytest.mark.parametrize(
        ("value", "why"),
        [
            ('"http1"', "'http1' (file x.toml): must be a list of strings, such as [\"http1\"]"),
            ("{}", "{} (file x.toml): must be a list of strings"),
        ],
    )
    def test_bad_lists(self, value: str, why: str) -> None:
        """Nothing else is a list."""
        assert self.problems(f"transport.http.versions = {value}") == [f"[load_config] transport.http.versions = {why}"]

    def test_bad_items(self) -> None:
        """Every item that isn't a string, or not one of the lower-case words, is told with its place."""
        text = 'transport.http.versions = [1, "http1", "H2", ["http1"], "h2"]'
        start = "[load_config] transport.http.versions"
        assert self.problems(text) == [
            f"{start}[0] = 1 (file x.toml): must be a string",
            f"{start}[2] = 'H2' (file x.toml): must be one of http1, http2",
            f"{start}[3] = ['http1'] (file x.toml): must be a string",
        ]

    @pytest.mark.parametrize("value", ["1.2", "true"])
    def test_tls_versions(self, value: str) -> None:
        """A TLS version is a string, not a number."""
        (problem,) = self.problems(f"transport.tls.min_version = {value}")
        assert problem.endswith(": must be a string")

    @pytest.mark.parametrize("value", ["1.2", "tls1.2", "tls-1.2"])
    def test_tls_version_names(self, value: str) -> None:
        """TLS versions have other spellings."""
        assert self.values(f'transport.tls.min_version = "{value}"') == {"transport.tls.min_version": "1.2"}

    def test_all_at_once(self) -> None:
        """Every problem of a file is found, and its good keys are read all the same."""
        Path("x.toml").write_text("a = 1\n[limits]\nmax_stream_bytes = '1'\nb = 2\nmax_memory_bytes = 5")
        layer = read_file("x.toml")
        assert len(layer.problems) == 3
        assert list(layer.settings) == ["limits.max_memory_bytes"]

    def test_long_values(self) -> None:
        """A problem stays on one line of bearable length, whatever the value."""
        (problem,) = self.problems(f'http.cache = "{"a" * 1000}\\nb"')
        assert len(problem) < 250
        assert "\n" not in problem

    def test_missing(self) -> None:
        """A file that was asked for must exist."""
        (problem,) = read_file("none.toml", named_by="--config").problems
        assert str(problem) == (
            "[load_config] configuration file not found: 'none.toml' (--config): give the path of an existing file"
        )

    def test_dangling(self) -> None:
        """A link that leads nowhere is a mistake, also where no file is fine."""
        assert read_file("x.toml").problems == []
        Path("x.toml").symlink_to("none.toml")
        (problem,) = read_file("x.toml").problems
        assert "configuration file not found: 'x.toml': give" in str(problem)

    def test_unreadable(self, tmp_path: Path) -> None:
        """A path that can't be read is refused with the system's reason."""
        (problem,) = read_file(str(tmp_path), named_by="--config").problems
        assert str(problem).startswith(f"[load_config] configuration file cannot be read: '{tmp_path}' (--config): Is")

    def test_byte_order_mark(self) -> None:
        """The mark with which some editors begin a file isn't part of it."""
        Path("x.toml").write_bytes("\ufeff[server]\r\ndrain_delay_secs = 3\r\n".encode())
        layer = read_file("x.toml")
        assert (layer.problems, layer.settings["server.drain_delay_secs"].value) == ([], 3)

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"a = ", "(at end of document)"),
            (b"\n\na b", "(at line 3, column 3)"),
            (b"a = '\xff'", "byte 5 is not UTF-8; save the file as UTF-8"),
            (b"a = 1\na = 2", "Cannot overwrite a value"),
            (b"a = " + b"[" * 100_000, "nested too deeply"),
            (b"a = " + b"9" * 5_000, "Exceeds the limit"),
        ],
    )
    def test_not_toml(self, data: bytes, reason: str) -> None:
        """What isn't TOML is one problem that says where."""
        (problem,) = self.problems(data)
        assert problem.startswith("[load_config] configuration file is not valid TOML: 'x.toml': ")
        assert reason in problem
        assert "\n" not in problem
