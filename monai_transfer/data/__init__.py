"""Data: lists of one transfer, readers, the embedded phantoms, input-space adaptation."""
