"""HTTP/2: a connection, its streams, and what a client may do with them."""
