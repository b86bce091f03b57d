"""What a listing looks like."""

from __future__ import annotations

import json

import pytest

from dstreams.transfer.listing import Listed, as_json, as_table


def listed(name: str = "s", **more: object) -> Listed:
    return Listed(name=name, **{"closed": False, "content_type": "text/plain", **more})  # type: ignore[arg-type]


class TableTests:
    """The table for people."""

    def test_empty(self) -> None:
        """An empty store is said to be."""
        assert list(as_table([])) == ["No streams found."]

    def test_rows(self) -> None:
        """A header, a line, the streams, and how many they are."""
        found = list(
            as_table(
                [
                    listed("a", messages=3, total_bytes=1536, created_at=1_800_000_000.9, updated_at=None),
                    listed("b", closed=True),
                ]
            )
        )
        assert found == [
            (
                "Name                           Status     Messages        Bytes Content-Type             "
                "Created                Updated"
            ),
            "-" * 132,
            (
                "a                              open              3       1.5 KB text/plain               "
                "2027-01-15 08:00:00    -"
            ),
            (
                "b                              closed            -            - text/plain               -"
                "                      -"
            ),
            "",
            "2 stream(s) total",
        ]

    def test_long(self) -> None:
        """Long names and types are cut, so that the columns stay in line."""
        row = list(as_table([listed("ü" * 31, content_type="x/" + "y" * 30)]))[2]
        assert row.startswith("ü" * 27 + "... open ")
        assert " x/yyyyyyyyyyyyyyyyyyy... -" in row

    @pytest.mark.parametrize(
        "nasty",
        ["\x1b", "\x07", "\x9b", "\x7f", "\n", "\u202e", "\u2066", "\u200e", "\u200f", "\u200b", "\ufeff", "\ud800"],
    )
    def test_terminal(self, nasty: str) -> None:
        """What a terminal might obey, and what can't be seen, is escaped; letters of any script stay."""
        row = list(as_table([listed(f"ä日本{nasty}x")]))[2]
        assert row.startswith(f"ä日本{nasty.encode('unicode_escape').decode()}x ")
        assert row.isprintable()

    @pytest.mark.parametrize(
        ("size", "text"),
        [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KB"),
            (10 * 1024**2, "10.0 MB"),
            (1024**3, "1.0 GB"),
            (5000 * 1024**3, "5000.0 GB"),
        ],
    )
    def test_sizes(self, size: int, text: str) -> None:
        """Sizes are short."""
        assert listed(total_bytes=size).cells[3] == text


class JsonTests:
    """The array for programs."""

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_array(self, count: int) -> None:
        """The lines are one JSON array, whatever is in it."""
        given = [
            listed(f's"{number}', expires_at=1_800_000_000.0, messages=1, total_bytes=2) for number in range(count)
        ]
        found = json.loads("\n".join(as_json(given)))
        assert found == [each.members for each in given]

    def test_name_as_it_is(self) -> None:
        """Programs get the name itself."""
        assert json.loads("\n".join(as_json([listed("a\u202eb")])))[0]["name"] == "a\u202eb"

    def test_members(self) -> None:
        """Every member is there, null where nothing is known."""
        assert listed().members == {
            "name": "s",
            "status": "open",
            "message_count": None,
            "total_bytes": None,
            "content_type": "text/plain",
            "created_at": None,
            "updated_at": None,
            "ttl_seconds": None,
            "expires_at": None,
        }
