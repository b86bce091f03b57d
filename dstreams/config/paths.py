"""URL paths in the configuration, and the paths that the server reserves."""

from __future__ import annotations

import re

READY_PATH = "/readyz"
"""The path that tells whether the server is ready for traffic."""

HEALTH_PATHS = ("/health", "/healthz", READY_PATH)
"""The paths of the health checks."""

METRICS_PATH = "/metrics"
"""The path of the metrics."""

RESERVED_PATHS = (*HEALTH_PATHS, METRICS_PATH)
"""Paths that are never streams. If the streams are at the root, streams with these names cannot be reached."""

_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+", re.ASCII)


def check_base_path(text: str) -> str | None:
    """Return why a path cannot be a base path, or ``None`` if it can.

    Valid paths are normalized: two of them are the same path only if their texts are equal.
    """
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
            return f"has the segment {segment!r}, which clients remove from a path; remove it"
        if not _SEGMENT.fullmatch(segment):
            return (
                f"has the segment {segment!r}; letters, digits and -._~!$&'()*+,;=:@ are allowed,"
                " without a query, percent-encoding or spaces"
            )
    if f"/{segments[0]}" in RESERVED_PATHS:
        return f"overlaps with the server's own pages at {', '.join(RESERVED_PATHS)}; choose another path"
    return None
