"""Filters for log events: a general level, and levels for single parts of the server.

The text form is that of ``RUST_LOG`` in Rust programs: items separated by commas, each a level (``info``), a target
with its level (``dstreams.storage=debug``), or a target alone, which logs everything from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import evolve, field, frozen

from dstreams.config.problems import BadItem, BadItems

LEVELS = ("debug", "info", "warn", "error", "critical", "off")
"""The levels, from the most to the least verbose. All but ``off`` are Twisted's."""

_WORDS = {level: level for level in LEVELS} | {
    "trace": "debug",
    "warning": "warn",
    "0": "off", "1": "error", "2": "warn", "3": "info", "4": "debug", "5": "debug",
}  # fmt: skip

_TARGET = re.compile(r"[A-Za-z0-9_]+(?:(?:\.|::)[A-Za-z0-9_]+)*", re.ASCII)

_RUST_CRATES = ("durable_streams_server", "durable_streams")
"""The names of the Rust server's own targets; they are replaced by ``dstreams``."""


@frozen
class LogFilter:
    """A general log level, with exceptions for single namespaces.

    :param default: one of :data:`LEVELS`, for every namespace without a target.
    :param targets: levels by namespace: ``{"dstreams.storage": "debug"}`` also applies to
        ``dstreams.storage.files.journal``.
    """

    default: str = "info"
    targets: Mapping[str, str] = field(factory=dict)

    def level(self, namespace: str) -> str:
        """Return the level of a namespace: that of the longest target that covers it."""
        while namespace:
            if namespace in self.targets:
                return self.targets[namespace]
            namespace = namespace.rpartition(".")[0]
        return self.default

    def with_default(self, level: str | None) -> LogFilter:
        """Return a copy with another general level, or this filter if ``level`` is ``None``."""
        return self if level is None else evolve(self, default=level)


def parse_log_filter(text: str) -> LogFilter:
    """Parse ``info``, ``warn,dstreams.storage=debug`` or ``off``; case and spaces around items do not matter.

    As in Rust, only errors are logged from parts that no item covers, for example with ``dstreams.storage=debug``
    alone.

    :raise ValueError: if the text has another form; the message says what to write.
    """
    default = "error"
    targets: dict[str, str] = {}
    bad = []
    items = [item.strip() for item in text.split(",")]
    if not any(items):
        raise ValueError("is blank; write a level such as info")
    for index, item in enumerate(items):
        if not item:
            continue
        target, equals, word = (part.strip() for part in item.partition("="))
        if not equals and target.lower() in _WORDS:
            default = _WORDS[target.lower()]
        elif not _TARGET.fullmatch(target):
            why = "is neither a level nor target=level with a target such as dstreams.http"
            bad.append(BadItem(index, item, why))
        elif word.lower() not in _WORDS and (equals and word):
            bad.append(BadItem(index, item, f"has the level {word!r}; the levels are {', '.join(LEVELS)}"))
        else:
            targets[_namespace(target)] = _WORDS.get(word.lower(), "debug")
    if bad:
        raise BadItems(bad)
    return LogFilter(default, targets)


def _namespace(target: str) -> str:
    """Convert a target to a namespace of Twisted's logger."""
    first, _, rest = target.replace("::", ".").partition(".")
    return ".".join(filter(None, ["dstreams" if first in _RUST_CRATES else first, rest]))
