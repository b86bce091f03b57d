"""Single-byte character sets, which text streams may use besides UTF-8."""

from __future__ import annotations

from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import cache
from typing import Final

SINGLE_BYTE: Final = frozenset(
    (
        "cp037",
        "cp1006",
        "cp1026",
        "cp1125",
        "cp1140",
        "cp1250",
        "cp1251",
        "cp1252",
        "cp1253",
        "cp1254",
        "cp1255",
        "cp1256",
        "cp1257",
        "cp1258",
        "cp273",
        "cp424",
        "cp437",
        "cp500",
        "cp720",
        "cp737",
        "cp775",
        "cp850",
        "cp852",
        "cp855",
        "cp856",
        "cp857",
        "cp858",
        "cp860",
        "cp861",
        "cp862",
        "cp863",
        "cp864",
        "cp865",
        "cp866",
        "cp869",
        "cp874",
        "cp875",
        "hp_roman8",
        "iso8859_10",
        "iso8859_11",
        "iso8859_13",
        "iso8859_14",
        "iso8859_15",
        "iso8859_16",
        "iso8859_2",
        "iso8859_3",
        "iso8859_4",
        "iso8859_5",
        "iso8859_6",
        "iso8859_7",
        "iso8859_8",
        "iso8859_9",
        "koi8_r",
        "koi8_t",
        "koi8_u",
        "kz1048",
        "latin_1",
        "mac_arabic",
        "mac_croatian",
        "mac_cyrillic",
        "mac_farsi",
        "mac_greek",
        "mac_iceland",
        "mac_latin2",
        "mac_roman",
        "mac_romanian",
        "mac_turkish",
        "palmos",
        "ptcp154",
        "tis_620",
    )
)
"""Python's codecs in which every byte is one character, or undefined.

They are listed here, because Python's look-up tries to import a module for each name, and caches each name.
"""

_MORE_NAMES: Final = {"windows_874": "cp874", "x_mac_cyrillic": "mac_cyrillic", "iso_8859_8_i": "iso8859_8"}
"""Names in use that are missing in Python, with Python's names."""


def decoding_table(name: str) -> str | None:
    """Return the character for each byte in a character set.

    :param name: the name as in a ``charset`` parameter, in any letter case.
    :return: 256 characters, U+FFFD for each undefined byte. ``None`` if the server does not decode this character set:
        UTF-8, character sets with several bytes per character, stateful ones, and unknown ones.
    """
    codec = normalize_encoding(name).lower()
    codec = _MORE_NAMES.get(codec) or aliases.get(codec, codec)
    return _table(codec) if codec in SINGLE_BYTE else None


@cache  # unbounded, because there are few codecs
def _table(codec: str) -> str:
    return "".join(bytes((byte,)).decode(codec, "replace") for byte in range(256))
