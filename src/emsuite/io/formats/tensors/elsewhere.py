"""A fresh process that works for a forked one, in which tensorstore cannot be used: see `store`."""

import functools
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from emsuite.common.errors import RunFailed


@functools.lru_cache(1)
def helper(_process: int) -> "Helper":
    """Return the process that works for this one, whose number is `_process`; it is started once."""
    return Helper()


class Helper:
    """A process that was not forked, and works for one that was; it ends when its input does."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._lock = threading.Lock()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `function` returns, or raise what it raises."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            with self._lock:
                pickle.dump((function, arguments), self._process.stdin)
                self._process.stdin.flush()
                done, answer = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            raise RunFailed("the process that reads and writes chunks has ended") from None
        if not done:
            raise answer
        return answer


def serve() -> None:
    """Answer the calls of a `Helper`, until its input ends."""
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not get into the answers
    while True:
        try:
            function, arguments = pickle.load(incoming)
        except EOFError:
            return
        try:
            answer = True, function(*arguments)
        except Exception as error:
            answer = False, error
        pickle.dump(answer, outgoing)
        outgoing.flush()
