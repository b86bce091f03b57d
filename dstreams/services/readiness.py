"""Whether the server is ready for traffic."""

from __future__ import annotations

from attrs import define


@define
class Readiness:
    """Whether the server has started and does not stop yet."""

    ready: bool = False

    def __call__(self) -> bool:
        return self.ready
