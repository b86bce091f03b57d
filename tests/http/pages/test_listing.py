"""``GET /admin/streams``."""

from __future__ import annotations

import json
import urllib.parse

import pytest
from attrs import define, field

from dstreams.http.messages import Request
from dstreams.http.pages.application import PagesApplication
from dstreams.http.pages.listing import listing_pages
from tests.support.engine import WALL, Engine, Reply, offset

pytestmark = pytest.mark.usefixtures("failures")


@define(eq=False)
class Admin:
    """An admin listener's application over an engine."""

    engine: Engine = field(factory=Engine)
    base_path: str = "/admin"
    application: PagesApplication = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.application = PagesApplication(listing_pages(self.base_path, self.engine.streams))

    def get(self, path: str, method: str = "GET", /, **query: str) -> Reply:
        encoded = urllib.parse.urlencode(query).encode()
        return Reply(self.application.respond(Request(method.encode(), path.encode(), encoded, {}, body=b"")))

    def streams(self, **query: str) -> list[dict[str, object]]:
        reply = self.get(f"{self.base_path}/streams", **query)
        assert reply.status == 200
        found = json.loads(reply.body)["streams"]
        assert isinstance(found, list)
        return found


class ListingPageTests:
    """The document."""

    def test_every_member(self) -> None:
        """A stream is described completely, times in RFC 3339, what it doesn't have as null."""
        admin = Admin()
        admin.engine.put("a/b", b"hello", "text/plain; charset=utf-8")
        admin.engine.pass_time(2)
        admin.engine.close("a/b", b"!")
        reply = admin.get("/admin/streams")
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["cache-control"] == "no-store"
        assert json.loads(reply.body) == {
            "streams": [
                {
                    "name": "a/b",
                    "content_type": "text/plain; charset=utf-8",
                    "closed": True,
                    "next_offset": offset(6),
                    "bytes": 6,
                    "messages": 2,
                    "created_at": "2027-01-15T08:00:00.000Z",
                    "updated_at": "2027-01-15T08:00:02.000Z",
                    "ttl_seconds": None,
                    "expires_at": None,
                    "forked_from": None,
                    "fork_offset": None,
                    "forks": 0,
                }
            ],
            "next": None,
        }
        assert admin.engine.wall() == WALL + 2

    def test_expiry_and_forks(self) -> None:
        """TTL, Expires-At and a fork's origin are told."""
        admin = Admin()
        admin.engine.put("idle", stream_ttl="60")
        admin.engine.put("until", stream_expires_at="2030-01-31T12:00:00Z")
        admin.engine.put("source", b"0123456789")
        admin.engine.fork("fork", "source", stream_fork_offset=offset(10))
        fork, idle, source, until = admin.streams()
        assert (idle["ttl_seconds"], idle["expires_at"]) == (60, None)
        assert (until["ttl_seconds"], until["expires_at"]) == (None, "2030-01-31T12:00:00.000Z")
        assert (fork["forked_from"], fork["fork_offset"], fork["bytes"]) == ("source", offset(10), 0)
        assert source["forks"] == 1

    def test_pages(self) -> None:
        """``next`` is what ``after`` takes, whatever characters a name has."""
        admin = Admin()
        names = ["a b", "a%20b", "a&b", "ä/ö", "日本"]
        for name in names:
            admin.engine.put(urllib.parse.quote(name))
        found, after = [], None
        for _ in names:
            query = {"limit": "1"} if after is None else {"limit": "1", "after": after}
            document = json.loads(admin.get("/admin/streams", **query).body)
            found += [stream["name"] for stream in document["streams"]]
            after = document["next"]
        assert found == sorted(names)
        assert after is None

    def test_prefix(self) -> None:
        """Only names with the prefix are listed."""
        admin = Admin()
        for name in ["a/1", "a/2", "b/1"]:
            admin.engine.put(name)
        assert [stream["name"] for stream in admin.streams(prefix="a/")] == ["a/1", "a/2"]

    @pytest.mark.parametrize(
        "query",
        ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=", "limit=1&limit=2", "prefix=%ff", "order=size"],
    )
    def test_bad_parameters(self, query: str) -> None:
        """A parameter that means nothing is refused with a problem that names it."""
        admin = Admin()
        request = Request(b"GET", b"/admin/streams", query.encode(), {}, body=b"")
        reply = Reply(admin.application.respond(request))
        assert reply.status == 400
        assert query.split("=", maxsplit=1)[0] in str(reply.problem["detail"]).lower()

    def test_other_paths_and_methods(self) -> None:
        """Elsewhere there is nothing, and the listing is only read."""
        admin = Admin(base_path="/ops")
        assert admin.get("/ops/streams").status == 200
        assert admin.get("/admin/streams").code == "NOT_FOUND"
        refused = admin.get("/ops/streams", "POST")
        assert refused.status == 405
        assert refused.headers["allow"] == "GET, HEAD"

    def test_reading_renews_nothing(self) -> None:
        """A listing doesn't count as use of a stream."""
        admin = Admin()
        admin.engine.put("s", stream_ttl="10")
        admin.engine.pass_time(8)
        assert admin.streams()
        admin.engine.pass_time(3)
        assert admin.engine.get("s").status == 404
