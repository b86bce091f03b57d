"""The rules of the Durable Streams protocol: values in, values out.

Nothing here does input or output, reads a clock or imports another part of the server, so every rule can be
read, tested and timed by itself. Each module is one concept of the specification.
"""
