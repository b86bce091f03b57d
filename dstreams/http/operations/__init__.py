"""What a method does to a stream: one module for each operation, and for the forms that a read can take."""
