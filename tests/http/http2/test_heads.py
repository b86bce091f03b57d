"""Heads of HTTP/2, where h2 leaves something to say."""

from __future__ import annotations

import pytest

from dstreams.http.http1.heads import HeadFault
from dstreams.http.http2.heads import Field, read_head, response_fields
from dstreams.http.transport.limits import HttpLimits

GET: list[Field] = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example:8443"), (b":path", b"/a")]


class ReadTests:
    """From fields to a request."""

    def test_authority(self) -> None:
        """The authority is what HTTP/1.1 calls Host: that is where a Location leads to."""
        assert read_head(GET, HttpLimits(), "").headers == {b"host": b"a.example:8443"}

    def test_host(self) -> None:
        """A request that was translated from HTTP/1.1 may have Host in its place."""
        fields = [field for field in GET if field[0] != b":authority"]
        assert read_head([*fields, (b"host", b"b.example")], HttpLimits(), "").headers == {b"host": b"b.example"}

    @pytest.mark.parametrize("length", [b"-1", b"1,1", b"+1", b"", b"1" * 20, b"\xb2"])
    def test_length(self, length: bytes) -> None:
        """A Content-Length that is no number is refused."""
        with pytest.raises(HeadFault, match="Content-Length"):
            read_head([*GET, (b"content-length", length)], HttpLimits(), "")

    def test_connect(self) -> None:
        """The server is no proxy."""
        with pytest.raises(HeadFault) as caught:
            read_head([(b":method", b"CONNECT"), (b":authority", b"a:1")], HttpLimits(), "")
        assert caught.value.status == 501

    @pytest.mark.parametrize(
        ("path", "split"), [(b"/", (b"/", b"")), (b"/a?b?c", (b"/a", b"b?c")), (b"/?", (b"/", b""))]
    )
    def test_target(self, path: bytes, split: tuple[bytes, bytes]) -> None:
        """The query begins at the first question mark."""
        request = read_head([*GET[:3], (b":path", path)], HttpLimits(), "")
        assert (request.path, request.query) == split


class ResponseTests:
    """From a response's head to fields."""

    def test_fields(self) -> None:
        """Names are lower-case, and what concerns an HTTP/1.1 connection is left out."""
        head = b"X-A: 1\r\nX-B:\r\nConnection: close\r\nLocation: https://a:1/\r\n"
        assert response_fields(201, head, b"Date: now\r\n", 3) == [
            (b":status", b"201"),
            (b"x-a", b"1"),
            (b"x-b", b""),
            (b"location", b"https://a:1/"),
            (b"date", b"now"),
            (b"content-length", b"3"),
        ]
