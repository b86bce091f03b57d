"""Logs, metrics and traces: what an operator sees of a running server.

A leaf: it knows the configuration and nothing of streams, storage or HTTP. Whoever measures something hands values
down.
"""
