"""The two ways a stage ends badly; each is shown to the user as one line."""


class EmsuiteError(Exception):
    """A failure that the user can read: one line, no traceback."""

    exit_code = 1


class BadInput(EmsuiteError):
    """What the user gave cannot be used: names the file, key or array, what it holds and what was expected."""

    exit_code = 2


class RunFailed(EmsuiteError):
    """The input was fine, but the run itself failed (a block that keeps failing, a loss that became NaN)."""
