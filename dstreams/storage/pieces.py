"""Bytes in several pieces, so that large ones need not be copied to stand beside others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LARGE_BYTES: Final = 8 * 1024
"""From here on bytes stay a piece of their own: copying them costs more than one piece more does."""

Chunk = bytes | bytearray


def gather(pieces: Sequence[bytes]) -> Sequence[bytes]:
    """The same bytes in fewer pieces: those that aren't large are joined with their neighbours.

    :param pieces: one at least.
    """
    if max(map(len, pieces)) < LARGE_BYTES:
        return (b"".join(pieces),)
    found: list[bytes] = []
    begin = 0
    for place, piece in enumerate(pieces):
        if len(piece) >= LARGE_BYTES:
            if begin < place:
                found.append(b"".join(pieces[begin:place]))
            found.append(piece)
            begin = place + 1
    if begin < len(pieces):
        found.append(b"".join(pieces[begin:]))
    return found
