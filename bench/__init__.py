"""Benchmarks: our server and its peers under the same load, and what single parts of ours cost."""
