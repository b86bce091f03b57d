"""Twisted's own tests of reactors, run against the one on uvloop: ``python -m twisted.trial``, not pytest.

A builder class becomes a test case per reactor when its module is imported, so the list of reactors is replaced
before that.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from twisted.internet.test.reactormixins import ReactorBuilder

ReactorBuilder._reactors = ["dstreams.net.reactor.UvloopReactor"]

SUFFIX = "_UvloopReactorTests"

MODULES = ["core", "fdset", "process", "socket", "tcp", "threads", "time", "tls", "udp", "unix"]
"""Those of ``twisted.internet.test`` that make test cases for what this reactor provides."""

SENT_AT_ONCE = "a thousand bytes are in the kernel when write returns, so no producer has to be paused"
NO_LOG_CONTEXT = "callbacks run outside of a log context: setting one takes longer than all else that is done for them"

DROPPED_UNSEEN = "descriptors for a protocol that doesn't want them are dropped by the kernel, so nobody can log it"
FOREIGN_USER = "user 1 may have no right to run this interpreter; it fails on Twisted's own reactors then, too"

LEFT_OUT = {
    "TCPTransportTestsBuilder.test_streamingProducer": SENT_AT_ONCE,
    "AdoptStreamConnectionTestsBuilder.test_streamingProducer": SENT_AT_ONCE,
    "UNIXAdoptStreamConnectionTestsBuilder.test_streamingProducer": SENT_AT_ONCE,
    "ProcessTestsBuilder.test_changeUID": FOREIGN_USER,
    "PTYProcessTestsBuilder.test_changeUID": FOREIGN_USER,
}
"""What isn't run, with the reason: it would wait in vain and disturb the tests that come after it."""

EXPECTED_FAILURES = {
    "TCP4ClientTestsBuilder.test_logPrefix": NO_LOG_CONTEXT,
    "TCP6ClientTestsBuilder.test_logPrefix": NO_LOG_CONTEXT,
    "SSLClientTestsMixin.test_logPrefix": NO_LOG_CONTEXT,
    "StartTLSClientTestsMixin.test_logPrefix": NO_LOG_CONTEXT,
    "UNIXTestsBuilder.test_logPrefix": NO_LOG_CONTEXT,
    "UNIXTestsBuilder.test_avoidLeakingFileDescriptors": DROPPED_UNSEEN,
}
"""What this reactor does otherwise, with the reason. One that passes after all fails the run."""


def collect() -> dict[str, type]:
    """The test cases, by name."""
    cases: dict[str, type] = {}
    for module in MODULES:
        names = vars(importlib.import_module(f"twisted.internet.test.test_{module}"))
        cases |= {name: case for name, case in names.items() if name.endswith(SUFFIX)}
    for attribute, tests in (("skip", LEFT_OUT), ("todo", EXPECTED_FAILURES)):
        for name, reason in tests.items():
            builder, method = name.split(".")
            _mark(cases[builder + SUFFIX], method, attribute, reason)
    return cases


def _mark(case: type, method: str, attribute: str, reason: str) -> None:
    """Mark the method of one case; the function itself belongs to all reactors."""
    original: Callable[[object], object] = getattr(case, method)

    def test(self: object) -> object:
        return original(self)

    setattr(test, attribute, reason)
    setattr(case, method, test)


globals().update(collect())
