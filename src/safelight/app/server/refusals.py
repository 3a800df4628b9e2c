"""What every API refuses alike."""

from safelight.errors import SafelightError


class NotHereError(SafelightError):
    """Something that other servers of these APIs have and this one has not."""
