"""The one exception that a user is meant to read."""


class SafelightError(Exception):
    """A mistake that the user can mend: one line that says what was expected, what came, and the
    remedy.

    The command line prints it without a traceback and exits with code 2.
    """
