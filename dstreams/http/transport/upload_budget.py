"""The upload budget: limits the memory of request bodies in flight on all connections together."""

from __future__ import annotations

from typing import Final

from attrs import define, field

SMALL_BYTES: Final = 64 * 1024
"""Bodies up to this size are not counted; it equals a connection's read-ahead."""

BUSY: Final = "Too many large request bodies are being received; try again later"


@define(eq=False)
class UploadBudget:
    """Counts the received bytes of bodies larger than ``SMALL_BYTES``.

    Only received bytes are counted, not announced ones, because an announcement costs a client nothing.

    :param most: maximum number of bytes.
    """

    most: int = 512 * 1024 * 1024
    used: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)
    """The number of rejected bodies."""

    def admits(self, length: int | None) -> bool:
        """Whether a body may begin to arrive.

        :param length: its size, or ``None`` if unknown.
        """
        if length is None or length <= SMALL_BYTES or self.used + length <= self.most:
            return True
        self.refused += 1
        return False

    def hold(self, held: int, received: int) -> int:
        """Count a body that has grown.

        :param held: the bytes counted for it so far.
        :param received: the bytes received of it.
        :return: the bytes counted for it now; -1 if the budget is exceeded, and then none are counted.
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
        """Stop counting a body that is complete or not needed any more."""
        self.used -= held
