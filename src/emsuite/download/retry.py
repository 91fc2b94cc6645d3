"""Another try after failures that may pass: throttling, a broken connection, a truncated answer."""

import logging
import random
import threading
from collections.abc import Callable
from typing import TypeVar

from emsuite.common.errors import RunFailed

_TRIES = 9
_FIRST_DELAY = 0.2
_LONGEST_DELAY = 20.0

Result = TypeVar("Result")
log = logging.getLogger(__name__)


class Unreliable(Exception):
    """A failure that may pass."""


class Unreachable(Unreliable):
    """No connection at all."""


class Stopped(Exception):
    """Another failure has ended the work."""


def retried(call: Callable[[], Result], *, tries_to_reach: int = _TRIES, stop: threading.Event | None = None) -> Result:
    """The result of `call`, called again after each `Unreliable`, with delays (s) that double and vary at random.

    `tries_to_reach` bounds the tries where there is no connection at all; `stop` ends the waiting. Raises RunFailed
    when the failure does not pass, Stopped when `stop` was set.
    """
    stop = stop or threading.Event()
    attempt = 1
    while True:
        try:
            return call()
        except Unreliable as error:
            if attempt >= (tries_to_reach if isinstance(error, Unreachable) else _TRIES):
                raise RunFailed(f"{error} (tried {attempt} times; the same command continues what is there)") from None
            log.debug("%s; trying again", error)
        if stop.wait(min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)):
            raise Stopped
        attempt += 1
