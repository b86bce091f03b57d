"""Every backend lives through the same random requests, and must answer as the model does."""

from __future__ import annotations

import os

from hypothesis import settings

from tests.model.backends import AcidInMemoryMachine, AcidMachine, FileDurableMachine, FileFastMachine
from tests.model.delayed import DelayedStreamsMachine
from tests.model.machine import StreamsMachine

MemoryTests = StreamsMachine.TestCase
DelayedMemoryTests = DelayedStreamsMachine.TestCase
AcidInMemoryTests = AcidInMemoryMachine.TestCase
FileFastTests = FileFastMachine.TestCase
FileDurableTests = FileDurableMachine.TestCase
AcidTests = AcidMachine.TestCase

EVERYDAY = settings(max_examples=100, stateful_step_count=50)
THOROUGH = settings(max_examples=2_000, stateful_step_count=80)

CHOSEN = THOROUGH if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else EVERYDAY
MemoryTests.settings = DelayedMemoryTests.settings = AcidInMemoryTests.settings = CHOSEN
FileFastTests.settings = FileDurableTests.settings = AcidTests.settings = CHOSEN
