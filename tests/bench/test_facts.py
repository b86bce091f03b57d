"""What is told of the machine."""

from __future__ import annotations

from bench.facts import described, mounted

_MOUNTS = """/dev/vda / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/vdb /data xfs rw 0 0
/dev/vdc /data/streams btrfs rw 0 0
none /data/streams overlay rw 0 0
"""


class MountedTests:
    def test_longest(self) -> None:
        """The innermost mount counts, and of several on one place the last."""
        assert mounted(_MOUNTS, "/home") == "ext4"
        assert mounted(_MOUNTS, "/tmp/x") == "tmpfs"
        assert mounted(_MOUNTS, "/data") == "xfs"
        assert mounted(_MOUNTS, "/data/streams/one") == "overlay"

    def test_whole_names(self) -> None:
        """A directory whose name only begins like a mount's isn't on it."""
        assert mounted(_MOUNTS, "/database") == "ext4"

    def test_unknown(self) -> None:
        """Without a mount the type is unknown."""
        assert mounted("", "/home") == "?"


class DescribedTests:
    def test_list(self) -> None:
        """Facts are a list; what isn't known is left out."""
        assert described({"cores": "2", "node": "", "wrk": "4.1.0"}) == "- cores: 2\n- wrk: 4.1.0"
