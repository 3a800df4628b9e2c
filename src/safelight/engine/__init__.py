"""Other ways to compute what networks compute: the same numbers up to rounding, sooner."""
