"""Parses the ``Forwarded`` header, to which each proxy on the way adds an element (RFC 7239 section 4)."""

from __future__ import annotations

import re

# One pair, or none, with the semicolon, comma or end of text after it. Values with colons and brackets should be
# quoted, but proxies send them unquoted. All quantifiers are possessive: with backtracking, a header full of spaces
# took seven seconds.
_PAIR = re.compile(
    rb"[ \t]*+(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]++)="
    rb"(?:\"((?:[^\"\\]++|\\.)*+)\"|([!#$%&'*+\-.^_`|~0-9A-Za-z:\[\]]*+))[ \t]*+)?([;,]|\Z)",
    re.DOTALL,
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)

Element = dict[bytes, bytes]
"""Parameters by their names in lower case."""


def parse_forwarded(value: bytes) -> list[Element] | None:
    """Return the elements of a header, that of the nearest proxy last; empty ones are left out.

    A client may send the beginning of the header, to which proxies append their elements. An unclosed quotation mark
    in it would swallow what the proxies append. But then the rest is malformed: the appended text contains quotation
    marks itself, or leaves the string unclosed. So a header that is malformed anywhere is ignored as a whole.

    :return: ``None`` if the header is malformed.
    """
    elements: list[Element] = []
    element: Element = {}
    position = 0
    while True:
        pair = _PAIR.match(value, position)
        if pair is None:
            return None
        name, quoted, plain, separator = pair.groups()
        if name is not None:
            name = name.lower()
            if name in element:
                return None  # RFC 7239 section 4: a parameter occurs at most once in an element
            element[name] = plain if quoted is None else _ESCAPED.sub(rb"\1", quoted)
        if separator != b";" and element:
            elements.append(element)
            element = {}
        if not separator:
            return elements
        position = pair.end()
