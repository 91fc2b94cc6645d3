"""The two errors that end a stage. Each is shown to the user as one line."""


def one_line(message: str) -> str:
    """Return the lines of `message` joined to one."""
    return " ".join(line.strip() for line in message.splitlines())


class EmsuiteError(Exception):
    """A failure that the user sees as one line, without a traceback."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the message as one line, even if it quotes several lines of a library."""
        return one_line(super().__str__())


class BadInput(EmsuiteError):
    """The user's input cannot be used. The message names the file, key or array, what it holds and what is expected."""

    exit_code = 2


class RunFailed(EmsuiteError):
    """The input was valid, but the run failed (a block that keeps failing, a loss that became NaN)."""
