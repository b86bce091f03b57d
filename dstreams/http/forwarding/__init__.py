"""What reverse proxies say of the client, and when they are believed."""
