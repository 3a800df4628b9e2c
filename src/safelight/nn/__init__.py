"""Layers: they know nothing of diffusion, of checkpoints, or of what a conditioning means."""
