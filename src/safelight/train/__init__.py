"""One training loop, its state, and one step function per objective."""
