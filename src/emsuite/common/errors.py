"""The two errors that end a stage, each shown to the user as one line, and the rules for any text that is shown.

Texts quote names of files, arrays and keys, and answers of servers, which anyone may have written. `printable` shows
their control characters as escapes, so that they cannot command a terminal. `without_secrets` hides passwords and keys.
"""

import errno
import re
from collections.abc import Mapping
from typing import Any

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters: escape sequences begin with them
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"  # invisible: breaks of lines, changes of the direction
    "\ud800-\udfff]"  # bytes of a file name that are no text
)
_URL = re.compile(r"[A-Za-z0-9+.-]{1,40}:/{1,2}[^\s<>]+")
_USER = re.compile(r"(?<=:/)(/?)(?:[^/\s]*|[^/@\s]*:(?!\d+(?:/|$))\S*)@(?!sha256:)")
_QUERY = re.compile(r"(?<=[?&#])([^=&#\s]+)=[^&#\s'\"),;]+")
_SECRET_NAME = (
    r"(?<![\w-])[\w-]*(?:secret|passw(?:or)?d|token|api[_-]?key|access[_-]?key|authorization|credential)[\w-]*"
)
_NAMED = re.compile(rf"({_SECRET_NAME})(['\"]?\s*[=:]\s*['\"]?)(?:(?:basic|bearer)\s+)?[^\s,;&'\"]+", re.IGNORECASE)
_ACCESS_KEY = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}")
_HIDDEN = "***"


def printable(text: str) -> str:
    """Return `text` with control characters, and invisible ones that change its order, as escapes such as `\\x1b`."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def without_secrets(value: Any) -> Any:
    """Return a text, or a structure of dictionaries and lists, with its secrets replaced by `***`.

    Secrets are user names and passwords in URLs, the values of a URL's query, values that are called password, token,
    secret or access key, and AWS's access keys.
    """
    if isinstance(value, str):
        text = _URL.sub(lambda match: _QUERY.sub(r"\1=" + _HIDDEN, _USER.sub(rf"\1{_HIDDEN}@", match[0])), value)
        return _ACCESS_KEY.sub(_HIDDEN, _NAMED.sub(rf"\1\2{_HIDDEN}", text))
    if isinstance(value, Mapping):
        return {key: _HIDDEN if _names_secret(key) and item else without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        before = ["", *value]
        pairs = zip(before, value, strict=False)
        hidden = [_HIDDEN if _is_secret_option(last) else without_secrets(item) for last, item in pairs]
        return tuple(hidden) if isinstance(value, tuple) else hidden
    return value


def one_line(message: str) -> str:
    """Return the lines of `message` joined to one, without secrets and control characters."""
    return printable(without_secrets(" ".join(line.strip() for line in message.splitlines())))


def in_lines(text: str) -> str:
    """Return a text of several lines, each without secrets and control characters."""
    return "\n".join(printable(without_secrets(line)) for line in text.split("\n"))


def _names_secret(key: Any) -> bool:
    return isinstance(key, str) and re.fullmatch(_SECRET_NAME, key, re.IGNORECASE) is not None


def _is_secret_option(word: Any) -> bool:
    return isinstance(word, str) and word.startswith("-") and "=" not in word and _names_secret(word)


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


_BAD_PATHS = {errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ENXIO}


def of_file_system(error: OSError) -> tuple[str, int]:
    """Return message and exit code for a full disk, a file of another user, a path that leads nowhere, and the like."""
    code = BadInput.exit_code if error.errno in _BAD_PATHS else RunFailed.exit_code
    return f"{error.filename or 'file system'}: {error.strerror or error}", code
