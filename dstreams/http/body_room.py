"""How much memory request bodies may take that are still arriving, on all connections together."""

from __future__ import annotations

from typing import Final

from attrs import define, field

SMALL_BYTES: Final = 64 * 1024
"""Of a body so much always has room: as much as a connection reads ahead in any case."""

BUSY: Final = "Too many large request bodies are arriving at the moment"


@define(eq=False)
class BodyRoom:
    """Counts the bytes that have come of bodies of more than ``SMALL_BYTES``.

    What has come is counted, not what was announced: an announcement costs a client nothing.

    :param most: how many bytes there may be.
    """

    most: int = 512 * 1024 * 1024
    used: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)
    """How many bodies there was no room for."""

    def admits(self, length: int | None) -> bool:
        """Whether a body may begin to arrive.

        :param length: its length, ``None`` when that isn't known.
        """
        if length is None or length <= SMALL_BYTES or self.used + length <= self.most:
            return True
        self.refused += 1
        return False

    def hold(self, held: int, received: int) -> int:
        """Count a body that has grown.

        :param held: what was counted of it.
        :param received: how much of it has come.
        :return: what is counted of it now; -1 when there is no room for it, and then nothing is.
        """
        if received <= SMALL_BYTES:
            return 0
        self.used += received - held
        if self.used <= self.most:
            return received
        self.used -= received
        self.refused += 1
        return -1

    def free(self, held: int) -> None:
        """A body is complete, or isn't wanted any more."""
        self.used -= held
