"""Settings for all tests.

``HYPOTHESIS_PROFILE=thorough`` draws many more examples, new ones in every run; the everyday profile draws
the same ones every time and has no deadlines, so that a slow machine doesn't fail.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", deadline=None, max_examples=2_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
