"""The origins whose scripts may use the server (CORS), as written in the configuration."""

from __future__ import annotations

import re

from dstreams.config.problems import BadItem

_ORIGIN = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<host>[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<slash>/?)",
    re.ASCII,
)

_DEFAULT_PORTS = {"http": "80", "https": "443"}


def check_origins(text: str) -> list[BadItem]:
    """Return what is wrong with a list of origins.

    :param text: ``*``, or origins separated by commas.
    """
    origins = [origin.strip() for origin in text.split(",")]
    if origins == ["*"]:
        return []
    bad = []
    for index, origin in enumerate(origins):
        why = _check_origin(origin)
        if why is None and origin in origins[:index]:
            why = f"repeats item [{origins.index(origin)}]; write it once"
        if why is not None:
            bad.append(BadItem(index, origin, why))
    return bad


def _check_origin(origin: str) -> str | None:
    """Return why this is not an origin as a browser sends it in its ``Origin`` header, or ``None`` if it is one."""
    if origin == "null":
        return None
    if not origin:
        return "is empty; write * or origins separated by single commas"
    if origin == "*":
        return "is mixed with other origins; write * alone, or only origins"
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return "is not an origin such as https://app.example or http://localhost:3000"
    scheme, port = match["scheme"].lower(), match["port"]
    sent = f"{scheme}://{match['host'].lower()}"
    if port is not None and port != _DEFAULT_PORTS.get(scheme):
        sent += f":{int(port)}"
    return None if origin == sent else f"is sent by browsers as {sent!r}; write it like that"
