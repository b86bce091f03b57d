"""Logs, metrics and traces of a running server, for operators.

This package depends on the configuration, but not on streams, storage or HTTP; those pass their values to it.
"""
