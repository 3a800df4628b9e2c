"""Weights on the disk: reading, recognising, renaming, writing."""
