"""Paths of URLs in the configuration, and the ones that are taken already."""

from __future__ import annotations

import re

HEALTH_PATHS = ("/health", "/healthz", "/readyz")
"""Where the health checks are."""

METRICS_PATH = "/metrics"
"""Where the metrics are."""

RESERVED_PATHS = (*HEALTH_PATHS, METRICS_PATH)
"""Paths that are never streams; with the streams at the root, the streams of these names can't be reached."""

_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+", re.ASCII)


def check_base_path(text: str) -> str | None:
    """Why something can't be put below a path, ``None`` when it can.

    What passes has one form only: two paths are the same when their texts are.
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
            return f"has the segment {segment!r}, which clients remove from a path; leave it out"
        if not _SEGMENT.fullmatch(segment):
            return (
                f"has the segment {segment!r}; letters, digits and -._~!$&'()*+,;=:@ are allowed,"
                " without a query, percent-encoding or blanks"
            )
    if f"/{segments[0]}" in RESERVED_PATHS:
        return f"overlaps with the server's own pages at {', '.join(RESERVED_PATHS)}; choose another path"
    return None
