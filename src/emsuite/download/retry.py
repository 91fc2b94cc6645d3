"""Retries of calls that fail for reasons that may pass: throttling, a broken connection, a truncated answer."""

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


class TransientError(Exception):
    """A failure that may pass: the call is worth another try."""


class Unreachable(TransientError):
    """No connection to the server at all."""


class Stopped(Exception):
    """Another worker failed, so this one ends too."""


def with_retries(
    call: Callable[[], Result], *, tries_to_reach: int = _TRIES, stop: threading.Event | None = None
) -> Result:
    """Return the result of `call`; call it again after each `TransientError`.

    Delays start at 0.2 s, double up to 20 s, and vary at random by a half.

    Args:
        call: the function to call, without arguments.
        tries_to_reach: the number of tries if there is no connection at all.
        stop: an event that ends the waiting.

    Raises:
        RunFailed: the failure did not pass.
        Stopped: `stop` was set while this function waited.
    """
    stop = stop or threading.Event()
    attempt = 1
    while True:
        try:
            return call()
        except TransientError as error:
            if attempt >= (tries_to_reach if isinstance(error, Unreachable) else _TRIES):
                raise RunFailed(f"{error} (tried {attempt} times; the same command continues what is there)") from None
            log.debug("%s; trying again", error)
        if stop.wait(min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)):
            raise Stopped
        attempt += 1
