"""A few dozen damaged stores of each mode; ``python -m tests.corruption`` runs many more."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.corruption.trial import make, run

TRIALS = 24


class CorruptionTests:
    @pytest.mark.parametrize("mode", ["acid", "file-durable", "file-fast"])
    def test_any_damage(self, mode: str, tmp_path: Path) -> None:
        """No wrong byte is answered with 200, nothing ends in a traceback, and a check finds what a start refuses."""
        template = make(mode, tmp_path)
        outcomes = Counter(run(template, seed, tmp_path) for seed in range(TRIALS))
        assert outcomes["refused"]
        assert outcomes["right"]
