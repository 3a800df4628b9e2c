"""`safelight serve`: jobs over HTTP, and the one process that owns the model."""
