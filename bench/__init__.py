"""Benchmarks: this server and its peers under the same load, and the costs of single parts of this server."""
