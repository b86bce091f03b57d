"""The ``Forwarded`` header: what each proxy on the way has added to it (RFC 7239 section 4)."""

from __future__ import annotations

import re

# One pair, or none, up to the semicolon, the comma or the end behind it. Values with colons and brackets should be
# quoted, but proxies send them as they are. No quantifier gives back what it has taken: a head full of blanks took
# seven seconds when they did.
_PAIR = re.compile(
    rb"[ \t]*+(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]++)="
    rb"(?:\"((?:[^\"\\]++|\\.)*+)\"|([!#$%&'*+\-.^_`|~0-9A-Za-z:\[\]]*+))[ \t]*+)?([;,]|\Z)",
    re.DOTALL,
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)

Element = dict[bytes, bytes]
"""Parameters by their lower-case names."""


def parse_forwarded(value: bytes) -> list[Element] | None:
    """The elements of a header, that of the nearest proxy last; empty ones are left out.

    A client may send the beginning of the header, to which proxies add their elements. One quotation mark that isn't
    closed would then swallow what a proxy has added. But whatever stands before it, the text of a proxy that uses
    quotation marks itself is malformed from then on, and one that doesn't use them leaves the string open. So a
    header that is malformed anywhere says nothing at all.

    :return: ``None`` when the header is malformed.
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
                return None  # RFC 7239 section 4: once in each element
            element[name] = plain if quoted is None else _ESCAPED.sub(rb"\1", quoted)
        if separator != b";" and element:
            elements.append(element)
            element = {}
        if not separator:
            return elements
        position = pair.end()
