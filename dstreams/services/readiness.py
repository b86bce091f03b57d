"""Whether the server is ready for traffic."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define


@define
class Readiness:
    """Whether the server is ready for traffic, as reported by ``/readyz``.

    :param failure: returns why the storage accepts no more changes, or ``None``.
    """

    ready: bool = False
    failure: Callable[[], str | None] = lambda: None

    def __call__(self) -> bool:
        return self.ready and self.failure() is None
