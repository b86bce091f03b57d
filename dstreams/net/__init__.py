"""What lies below HTTP: the reactor on uvloop, TLS, and the endpoints that speak it."""
