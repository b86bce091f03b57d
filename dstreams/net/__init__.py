"""What listens: TLS, and the endpoints that speak it."""
