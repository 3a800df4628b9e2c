"""From what a user says to the parts of a `Conditioning`."""
