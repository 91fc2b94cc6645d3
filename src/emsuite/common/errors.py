"""The two ways a stage ends badly; each is shown to the user as one line."""


def one_line(message: str) -> str:
    """The lines of `message` behind each other."""
    return " ".join(line.strip() for line in message.splitlines())


class EmsuiteError(Exception):
    """A failure that the user can read: one line, no traceback."""

    exit_code = 1

    def __str__(self) -> str:
        """The message as one line, also where it quotes a library that speaks in several."""
        return one_line(super().__str__())


class BadInput(EmsuiteError):
    """What the user gave cannot be used: names the file, key or array, what it holds and what was expected."""

    exit_code = 2


class RunFailed(EmsuiteError):
    """The input was fine, but the run itself failed (a block that keeps failing, a loss that became NaN)."""
