"""Everything about HTTP: transports, operations, pages, and the parts that they share."""
