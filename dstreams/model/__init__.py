"""The state of a stream and the changes to it: plain values, and one pure function that applies a change."""
