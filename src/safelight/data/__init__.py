"""Folders of captioned pictures to training batches that are pure functions of (seed, step)."""
