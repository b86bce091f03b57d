"""Percent-decoding."""

from __future__ import annotations

from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstreams.protocol.names import percent_decode


class PercentDecodeTests:
    """One level of escapes, all or nothing."""

    @given(st.binary(), st.sampled_from(["", "/", "+&="]))
    def test_undoes_encoding(self, data: bytes, safe: str) -> None:
        """Whatever was encoded comes back."""
        assert percent_decode(quote_from_bytes(data, safe=safe).encode()) == data

    @pytest.mark.parametrize(
        ("raw", "decoded"),
        [(b"a+b", b"a+b"), (b"%2f%2F", b"//"), (b"%2541", b"%41"), (b"%00", b"\x00"), (b"\xff", b"\xff")],
    )
    def test_decodes_once(self, raw: bytes, decoded: bytes) -> None:
        """An escape is decoded once, in either letter case; everything else is left alone."""
        assert percent_decode(raw) == decoded

    @pytest.mark.parametrize("raw", [b"%", b"a%", b"%4", b"%4g", b"%g4", b"%%41", b"%25%", b"% 1", b"%+1", b"%\n1"])
    def test_refuses_a_malformed_escape(self, raw: bytes) -> None:
        """A percent sign without two hexadecimal digits is an error, not a literal."""
        with pytest.raises(ValueError, match="%"):
            percent_decode(raw)
