"""HTTP/1.1 as this server speaks it: from a connection's bytes to requests, and from responses to bytes."""
