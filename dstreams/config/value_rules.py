"""Rules for single keys whose type, range and allowed words do not exclude every invalid value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dstreams.config.addresses import parse_bind_address, parse_host, parse_trusted
from dstreams.config.endpoints import check_endpoint
from dstreams.config.log_filter import parse_log_filter
from dstreams.config.origins import check_origins
from dstreams.config.paths import check_base_path
from dstreams.config.problems import BadItem, Why, why_of

Rule = Callable[[Any], Why | None]
"""Returns what is wrong with a value or with items of it, and how to fix it; ``None`` or nothing if it is valid."""

TextRule = Callable[[str], str | None]
"""Returns what is wrong with a single string, and how to fix it; ``None`` if it is valid."""

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)

_TAKEN_HEADERS = frozenset({"connection", "content-length", "content-type", "forwarded", "host", "transfer-encoding"})


def _raises(parse: Callable[[str], object]) -> Rule:
    """Return the rule that a parser accepts the text."""

    def rule(text: str) -> Why | None:
        try:
            parse(text)
        except ValueError as error:
            return why_of(error)
        return None

    return rule


def _each(rule: TextRule, same: Callable[[str], object] = str) -> Rule:
    """Return the rule that each item of a list passes ``rule`` and that no item is repeated.

    :param same: returns the value by which items are compared.
    """

    def check(items: Iterable[str]) -> list[BadItem]:
        seen: dict[object, tuple[int, str]] = {}
        bad = []
        for index, item in enumerate(items):
            why = rule(item)
            if why is None:
                place, first = seen.setdefault(same(item), (index, item))
                if place != index:
                    once = "repeats item [{}]" if first == item else "means the same as item [{}], {!r}"
                    why = f"{once.format(place, first)}; keep one of them"
            if why is not None:
                bad.append(BadItem(index, item, why))
        return bad

    return check


def _parses(parse: Callable[[str], object]) -> TextRule:
    """Return the rule that a parser accepts an item."""

    def rule(text: str) -> str | None:
        try:
            parse(text)
        except ValueError as error:
            return str(error)
        return None

    return rule


_distinct = _each(lambda _: None)


def _some(items: tuple[str, ...]) -> Why | None:
    return _distinct(items) if items else "must not be empty; name at least one"


def _file(text: str) -> str | None:
    if not text.strip():
        return "must not be blank; give the path of a PEM file, or remove the key"
    return _no_null(text)


def _directory(text: str) -> str | None:
    return _no_null(text) if text.strip() else "must not be blank; give the path of a directory"


def _no_null(text: str) -> str | None:
    return "has a null character, which paths cannot contain; remove it" if "\0" in text else None


def _power_of_two(number: int) -> str | None:
    return None if not number & (number - 1) else "must be a power of two: 1, 2, 4, ... 256"


def _header_name(text: str) -> str | None:
    if not _TOKEN.fullmatch(text):
        return "is not a header name; use one such as x-client-identity"
    if text.lower() in _TAKEN_HEADERS or text.lower().startswith("x-forwarded-"):
        return "is a header with another meaning; choose one such as x-client-identity"
    return None


def _request_header(text: str) -> str | None:
    if text == "*" or not _TOKEN.fullmatch(text):
        return "isn't the name of a header; write each one out, such as x-request-id"
    return None


def _admin_endpoint(text: str) -> str | None:
    if text.isascii() and text.isdigit():
        return f"is not an address; write 127.0.0.1:{text}"
    try:
        parse_bind_address(text)
    except ValueError:
        return check_endpoint(text)
    return None


VALUE_RULES: Mapping[str, Rule] = {
    "server.bind_address": _raises(parse_bind_address),
    "server.endpoints": _each(check_endpoint),
    "http.cors_origins": check_origins,
    "http.cors_allow_headers": _each(_request_header, str.lower),
    "http.stream_base_path": check_base_path,
    "storage.data_dir": _directory,
    "storage.acid_shard_count": _power_of_two,
    "transport.http.versions": _some,
    "transport.tls.cert_path": _file,
    "transport.tls.key_path": _file,
    "transport.tls.client_ca_path": _file,
    "transport.tls.alpn_protocols": _distinct,
    "proxy.trusted_proxies": _each(_parses(parse_trusted), parse_trusted),
    "proxy.identity.header_name": _header_name,
    "observability.rust_log": _raises(parse_log_filter),
    "admin.endpoint": _admin_endpoint,
    "admin.allowed_hosts": _each(_parses(parse_host), parse_host),
    "admin.base_path": check_base_path,
}
"""The rules by key. They are not applied to an unset key."""
