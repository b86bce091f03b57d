"""The fixture that these tests share: what is logged as a failure."""

from tests.support.engine import failures

__all__ = ["failures"]
