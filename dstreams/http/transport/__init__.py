"""What all versions of HTTP share: limits, connections, bodies, TLS negotiation."""
