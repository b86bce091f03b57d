"""The fixture that these tests share: what is logged as a failure."""

from tests.engine import failures

__all__ = ["failures"]
