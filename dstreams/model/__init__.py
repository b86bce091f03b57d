"""What a stream is and how it changes: plain values and one pure function that applies them."""
