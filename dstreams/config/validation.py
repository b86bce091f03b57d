"""What a configuration must fulfil beyond its types: every problem is found, not only the first."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from dstreams.config.addresses import parse_bind_address
from dstreams.config.problems import Problem
from dstreams.config.profiles import DeploymentProfile
from dstreams.config.schema import Config
from dstreams.config.settings import Setting
from dstreams.startup import StartupPhase

HEALTH_PATHS = ("/health", "/healthz", "/readyz")
"""Paths that are never streams; with the streams at the root, the streams of these names can't be reached."""

_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+", re.ASCII)

_ORIGIN = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<host>[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<slash>/?)",
    re.ASCII,
)

_WILDCARD = (
    "http.cors_origins is *: scripts of every web site may use this server; list the origins, or set"
    " http.allow_wildcard_cors = true to say that this is meant"
)

_DEFAULT_PORTS = {"http": "80", "https": "443"}


def validate(settings: Mapping[str, Setting], profile: DeploymentProfile) -> list[Problem]:
    """All that is wrong with the values that are in force.

    :param settings: every key by its path, each of the right type.
    :param profile: what production asks for is asked of production profiles only.
    """
    problems = []
    for path, setting in settings.items():
        why = _out_of_range(setting)
        rule = _RULES.get(path)
        if why is None and rule is not None:
            why = rule(setting.value)
        if why is not None:
            problems.append(setting.problem(StartupPhase.VALIDATE_CONFIG, why))
    origins, meant = settings["http.cors_origins"], settings["http.allow_wildcard_cors"]
    if profile.production and str(origins.value).strip() == "*" and not meant.value:
        why = f"isn't allowed in the profile {profile}; list the origins, or set http.allow_wildcard_cors = true"
        problems.append(origins.problem(StartupPhase.VALIDATE_CONFIG, why))
    return problems


def warnings(config: Config) -> list[str]:
    """What an operator should know about a valid configuration, one line each."""
    if "*" in config.http.origins and not config.http.allow_wildcard_cors:
        return [_WILDCARD]
    return []


def _out_of_range(setting: Setting) -> str | None:
    value, declaration = setting.value, setting.key.declaration
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    if value < declaration.least:
        return f"must be at least {declaration.least}"
    if value > declaration.most:
        return f"must be at most {declaration.most}"
    return None


def _bind_address(text: str) -> str | None:
    try:
        parse_bind_address(text)
    except ValueError as error:
        return str(error)
    return None


def _data_dir(text: str) -> str | None:
    return None if text.strip() else "must not be blank; give the path of a directory"


def _power_of_two(number: int) -> str | None:
    return None if not number & (number - 1) else "must be a power of two: 1, 2, 4, ... 256"


def _cors_origins(text: str) -> str | None:
    origins = [origin.strip() for origin in text.split(",")]
    if origins == ["*"]:
        return None
    for origin in origins:
        why = _origin(origin)
        if why is not None:
            return why
    return None


def _origin(origin: str) -> str | None:
    """Why this isn't an origin as a browser sends it in its ``Origin`` header, or ``None`` when it is."""
    if origin == "null":
        return None
    if not origin:
        return "has an empty entry; write * or origins separated by single commas"
    if origin == "*":
        return "mixes * with origins; write * alone, or only origins"
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return f"has the entry {origin!r}, which isn't an origin such as https://app.example or http://localhost:3000"
    scheme, port = match["scheme"].lower(), match["port"]
    sent = f"{scheme}://{match['host'].lower()}"
    if port is not None and port != _DEFAULT_PORTS.get(scheme):
        sent += f":{int(port)}"
    return None if origin == sent else f"has the entry {origin!r}, which browsers send as {sent!r}; write that"


def _stream_base_path(text: str) -> str | None:
    if text == "/":
        return None
    if not text.startswith("/"):
        return "must begin with /"
    if text.endswith("/"):
        return "must not end with /"
    segments = text[1:].split("/")
    for segment in segments:
        if not segment:
            return "has an empty segment; write single slashes"
        if segment in (".", ".."):
            return f"has the segment {segment!r}, which clients remove from a path; leave it out"
        if not _SEGMENT.fullmatch(segment):
            return (
                f"has the segment {segment!r}; letters, digits and -._~!$&'()*+,;=:@ are allowed,"
                " without a query, percent-encoding or blanks"
            )
    if f"/{segments[0]}" in HEALTH_PATHS:
        return f"overlaps with the health checks at {', '.join(HEALTH_PATHS)}; choose another path"
    return None


_RULES: Mapping[str, Callable[[Any], str | None]] = {
    "server.bind_address": _bind_address,
    "storage.data_dir": _data_dir,
    "storage.acid_shard_count": _power_of_two,
    "http.cors_origins": _cors_origins,
    "http.stream_base_path": _stream_base_path,
}
"""The checks of values by key: what is wrong and the remedy, or ``None``."""
