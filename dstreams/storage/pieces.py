"""Joins small pieces of bytes, without copying large ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LARGE_BYTES: Final = 8 * 1024
"""Minimum number of bytes of a piece that is not joined with others: a copy of it costs more than another piece."""

Chunk = bytes | bytearray


def gather(pieces: Sequence[bytes]) -> Sequence[bytes]:
    """Return the same bytes in fewer pieces, after joining adjacent small ones.

    :param pieces: at least one piece.
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
