"""The one exception that a user is meant to read."""


class SafelightError(Exception):
    """A mistake that the user can mend: one line that says what was expected, what came, and the
    remedy.

    The command line prints it without a traceback and exits with code 2.
    """


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line that is not too long; else its kind."""
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
