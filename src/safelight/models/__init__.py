"""Networks and their frozen configurations."""
