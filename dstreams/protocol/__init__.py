"""The rules of the Durable Streams protocol, as functions of plain values.

Nothing here does input or output, reads a clock, or imports another part of the server. So every rule can be read,
tested and timed in isolation. Each module covers one concept of the specification.
"""
