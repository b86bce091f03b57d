"""Whether the server wants traffic."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define


@define
class Readiness:
    """Whether the server wants traffic: what ``/readyz`` says.

    :param failure: why the storage takes no more changes, ``None`` while it does.
    """

    ready: bool = False
    failure: Callable[[], str | None] = lambda: None

    def __call__(self) -> bool:
        return self.ready and self.failure() is None
