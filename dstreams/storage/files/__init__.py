"""The file modes: a journal of all changes, data files for the bytes, and a catalog that checkpoints update."""
