"""Character sets of one byte a character."""

from __future__ import annotations

import encodings
import pkgutil
from importlib import import_module

import pytest

from dstreams.protocol.charsets import SINGLE_BYTE, decoding_table

ALL = bytes(range(256))
PAIRS = b"".join(bytes((first, second)) for first in ALL for second in ALL)


class CharsetsTests:
    """Character sets that the server decodes."""

    @pytest.mark.parametrize("codec", sorted(SINGLE_BYTE))
    def test_every_byte_on_its_own(self, codec: str) -> None:
        """Python decodes each byte to what the table says, whatever comes before it."""
        table = decoding_table(codec)
        assert table is not None
        assert len(table) == 256
        assert PAIRS.decode(codec, "replace") == "".join(table[byte] for byte in PAIRS)

    @pytest.mark.parametrize("codec", sorted(SINGLE_BYTE))
    def test_carriage_return(self, codec: str) -> None:
        """It is byte 13 everywhere, also in EBCDIC: an event isn't cut behind it."""
        table = decoding_table(codec)
        assert table is not None
        assert [byte for byte in ALL if table[byte] == "\r"] == [13]

    def test_all_codecs(self) -> None:
        """None of Python's single-byte codecs is missing."""
        found = set()
        for module in pkgutil.iter_modules(encodings.__path__):
            if module.name not in ("mbcs", "oem") and hasattr(
                import_module(f"encodings.{module.name}"), "decoding_table"
            ):
                found.add(module.name)
        assert found - {"iso8859_1"} == SINGLE_BYTE - {"latin_1"}

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("ISO-8859-1", "\xe4"),
            ("latin1", "\xe4"),
            ("ISO_8859-1:1987", "\xe4"),
            ("iso8859-1", "\xe4"),
            ("windows-1252", "\xe4"),
            ("Windows-1251", "\u0434"),
            ("cp1251", "\u0434"),
            ("koi8-r", "\u0414"),
            ("KOI8-U", "\u0414"),
            ("iso-8859-5", "\u0444"),
            ("iso-8859-15", "\xe4"),
            ("iso-8859-8-i", "\u05d4"),
            ("windows-874", "\u0e44"),
            ("tis-620", "\u0e44"),
            ("macintosh", "\u2030"),
            ("ibm037", "U"),
        ],
    )
    def test_names(self, name: str, text: str) -> None:
        """Names in use, in any letter case."""
        table = decoding_table(name)
        assert table is not None
        assert table[0xE4] == text

    def test_undefined_bytes(self) -> None:
        """They become U+FFFD."""
        table = decoding_table("windows-1252")
        assert table is not None
        assert [byte for byte in ALL if table[byte] == "\ufffd"] == [0x81, 0x8D, 0x8F, 0x90, 0x9D]

    @pytest.mark.parametrize(
        "name",
        [
            "utf-8",
            "UTF8",
            "us-ascii",
            "utf-16",
            "utf-7",
            "shift_jis",
            "euc-jp",
            "gb18030",
            "big5",
            "iso-2022-jp",
            "hz",
            "idna",
            "rot13",
            "unicode_escape",
            "undefined",
            "punycode",
            "charmap",
            "mbcs",
            "../latin_1",
        ],
    )
    def test_not_decoded(self, name: str) -> None:
        """Several bytes a character, a state, no character set at all."""
        assert decoding_table(name) is None

    def test_hostile_names_leave_nothing(self) -> None:
        """Unknown names never reach Python's registry, which would remember every one."""
        decoding_table("a-charset-that-nobody-has")
        assert "a_charset_that_nobody_has" not in vars(encodings)["_cache"]
