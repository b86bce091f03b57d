"""Handles the headers of reverse proxies: what they say about the client, and which peers are trusted to say it."""
