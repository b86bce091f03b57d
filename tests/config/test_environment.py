"""``DS_*`` environment variables."""

from __future__ import annotations

import pytest

from dstreams.config.environment import read_environment
from dstreams.config.keys import Value
from dstreams.config.schema import KEYS


def values(environ: dict[str, str]) -> dict[str, object]:
    """The values that an environment sets; it must be free of problems."""
    layer = read_environment(environ)
    assert layer.problems == []
    return {path: setting.value for path, setting in layer.settings.items()}


def problems(environ: dict[str, str]) -> list[str]:
    """What is wrong with an environment that sets nothing."""
    layer = read_environment(environ)
    assert layer.settings == {}
    return [str(problem) for problem in layer.problems]


def written(value: Value) -> str:
    """A value as it stands in a variable."""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


class VariableTests:
    """Every key has a variable, whose text is taken as it is."""

    def test_names(self) -> None:
        """A variable is named after the key's place, with two underscores between the levels."""
        assert values({"DS_TRANSPORT__CONNECTION__LONG_POLL_TIMEOUT_SECS": "5"}) == {
            "transport.connection.long_poll_timeout_secs": 5
        }

    def test_every_key(self) -> None:
        """The default of every key can be given as a variable."""
        keys = {path: key for path, key in KEYS.items() if key.default is not None}
        assert values({key.variable: written(key.default) for key in keys.values()}) == {
            path: key.default for path, key in keys.items()
        }

    @pytest.mark.parametrize("text", ["", " ", " /x ", "true", "1"])
    def test_strings(self, text: str) -> None:
        """A string is taken verbatim, also when it is empty."""
        assert values({"DS_HTTP__CORS_ORIGINS": text}) == {"http.cors_origins": text}

    def test_not_utf8(self) -> None:
        """Bytes that aren't UTF-8 are refused."""
        assert problems({"DS_STORAGE__DATA_DIR": "/a\udcff"}) == [
            r"[load_config] storage.data_dir = '/a\udcff' (DS_STORAGE__DATA_DIR): is not UTF-8; write it in UTF-8"
        ]

    @pytest.mark.parametrize(
        ("text", "items"),
        [("http1", ("http1",)), (" H2 ,, http/1.1 ", ("http2", "http1")), ("", ()), (" , ", ())],
    )
    def test_lists(self, text: str, items: tuple[str, ...]) -> None:
        """Items stand between commas; blanks around them and empty ones don't count."""
        assert values({"DS_TRANSPORT__HTTP__VERSIONS": text}) == {"transport.http.versions": items}
        assert values({"DS_PROXY__TRUSTED_PROXIES": "A, b"}) == {"proxy.trusted_proxies": ("A", "b")}

    def test_bad_lists(self) -> None:
        """Every unknown item is told, with its place."""
        end = "(DS_TRANSPORT__HTTP__VERSIONS): must be one of http1, http2"
        assert problems({"DS_TRANSPORT__HTTP__VERSIONS": "http1,spdy,H2,,http4"}) == [
            f"[load_config] transport.http.versions[1] = 'spdy' {end}",
            f"[load_config] transport.http.versions[3] = 'http4' {end}",
        ]

    @pytest.mark.parametrize(("text", "number"), [("0", 0), ("+7", 7), ("007", 7), (str(2**63 - 1), 2**63 - 1)])
    def test_numbers(self, text: str, number: int) -> None:
        """A number is decimal digits, with an optional plus sign."""
        assert values({"DS_LIMITS__MAX_STREAM_BYTES": text}) == {"limits.max_stream_bytes": number}

    @pytest.mark.parametrize("text", ["", " 1", "1 ", "-1", "1.0", "1e3", "0x10", "1_000", "\u0661", "++1", str(2**63)])
    def test_bad_numbers(self, text: str) -> None:
        """Nothing else is a number."""
        (problem,) = problems({"DS_LIMITS__MAX_STREAM_BYTES": text})
        assert problem.startswith("[load_config] limits.max_stream_bytes = ")
        assert "(DS_LIMITS__MAX_STREAM_BYTES): must be" in problem

    @pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False)])
    def test_booleans(self, text: str, value: bool) -> None:
        """A boolean is exactly true or false."""
        assert values({"DS_HTTP__ALLOW_WILDCARD_CORS": text}) == {"http.allow_wildcard_cors": value}

    @pytest.mark.parametrize("text", ["", "1", "0", "yes", "TRUE", "True", " true", "on"])
    def test_bad_booleans(self, text: str) -> None:
        """Nothing else is a boolean."""
        (problem,) = problems({"DS_HTTP__ALLOW_WILDCARD_CORS": text})
        assert problem == (
            f"[load_config] http.allow_wildcard_cors = {text!r} (DS_HTTP__ALLOW_WILDCARD_CORS):"
            " must be exactly true or false"
        )

    @pytest.mark.parametrize("text", ["public", "Public", "PUBLIC"])
    def test_words(self, text: str) -> None:
        """A word may be in upper case."""
        assert values({"DS_HTTP__CACHE": text}) == {"http.cache": "public"}

    @pytest.mark.parametrize("text", ["", "shared", " public"])
    def test_bad_words(self, text: str) -> None:
        """An unknown word is refused with the known ones."""
        assert problems({"DS_HTTP__CACHE": text}) == [
            f"[load_config] http.cache = {text!r} (DS_HTTP__CACHE): must be one of no-store, private, public"
        ]


class UnknownVariableTests:
    """A variable that looks like ours and isn't is taken for a slip of the pen."""

    def test_suggests_the_nearest(self) -> None:
        """A misspelt key or section is refused with the nearest known variable."""
        (problem,) = problems({"DS_SERVR__BIND_ADRESS": "x"})
        assert problem == (
            "[load_config] unknown environment variable DS_SERVR__BIND_ADRESS = 'x': did you mean"
            " DS_SERVER__BIND_ADDRESS?"
        )

    def test_odd_names(self) -> None:
        """A name stays on one line."""
        (problem,) = problems({"DS_A__\n\udcff": ""})
        assert problem == r"[load_config] unknown environment variable DS_A__\n\udcff = '': remove it"

    def test_nothing_near(self) -> None:
        """Where nothing is near, the remedy is to remove it."""
        (problem,) = problems({"DS_QQQ__ZZZ": ""})
        assert problem.endswith(": remove it")

    @pytest.mark.parametrize("name", ["PATH", "XDS_A__B", "ds_server__port", "DS", "DS_PROFILE"])
    def test_others(self, name: str) -> None:
        """Variables of other programs are left alone."""
        layer = read_environment({name: "x"})
        assert (layer.settings, layer.problems, layer.warnings) == ({}, [], [])

    def test_injected(self) -> None:
        """Variables such as Kubernetes makes for a service called ds are one warning, however many there are."""
        layer = read_environment({"DS_PORT": "tcp://10.0.0.1:80", "DS_SERVICE_HOST": "10.0.0.1", "DS_": ""})
        assert (layer.settings, layer.problems) == ({}, [])
        assert layer.warnings == [
            "environment variables that aren't configuration keys are ignored: DS_, DS_PORT, DS_SERVICE_HOST"
        ]
