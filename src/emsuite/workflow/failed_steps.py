"""The reasons why steps of the workflow failed, from Snakemake's logs: one line each, shown at the end of a run."""

import logging
import re
import signal
from collections.abc import Mapping
from pathlib import Path

from emsuite.common.errors import one_line
from emsuite.common.progress import is_progress

_FAILED = re.compile(r"^Error in (?:rule|group) (\w+):\n(.*?)(?=^\[|^Error in |\Z)", re.MULTILINE | re.DOTALL)
_MESSAGE = re.compile(r"^    message: (.*?)(?=^    \w+:|\Z)", re.MULTILINE | re.DOTALL)
_LOG = re.compile(r"^    log: (.+?)(?: \(check log file.*)?$", re.MULTILINE)
_SEE = re.compile(r"For further error details see .*|^ +sbatch call:.*", re.MULTILINE | re.DOTALL)
_ENDED = re.compile(
    r"^Command '(.*?)' (?:returned non-zero exit status (\d+)|died with <Signals\.\w+: (\d+)>)",
    re.MULTILINE | re.DOTALL,
)
_SIGNALS = 128
"""A shell adds this to the number of the signal that ended a program, and returns the sum as its exit status."""


class ErrorLog(logging.Handler):
    """Collects what Snakemake says of failed steps and their commands, even if it is told to be quiet about rules."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record, if it tells of a failed step or group, or of the exit status of a command."""
        if str(getattr(record, "event", "")).lower().endswith("error"):
            self.text += self.format(record) + "\n"


def collect_errors() -> ErrorLog:
    """Return a collection of errors that Snakemake's logger, of this process, fills from now on."""
    # imported here because the stages' environment has no Snakemake
    from snakemake.logging import DefaultFormatter, logger

    errors = ErrorLog()
    errors.setFormatter(DefaultFormatter(quiet=set()))
    logger.addHandler(errors)
    return errors


def failed_steps(text: str, project: Path) -> list[str]:
    """Return a text `step: reason` for each failed step, without duplicates.

    Args:
        text: what Snakemake says of failed steps and their commands in its log.
        project: the folder from which this text names the logs of steps.
    """
    signals = _signals(text)
    reasons = [one_line(f"{step}: {_reason(block, signals, project)}") for step, block in _FAILED.findall(text)]
    return list(dict.fromkeys(reasons))


def _signals(text: str) -> dict[str, int]:
    """Return the commands that a signal has ended, as `_bare` gives them, with the number of the signal."""
    numbers = {known.value for known in signal.Signals}
    found = {
        _bare(command): int(number) if number else int(status) - _SIGNALS
        for command, status, number in _ENDED.findall(text)
    }
    return {command: number for command, number in found.items() if number in numbers}


def _reason(block: str, signals: Mapping[str, int], project: Path) -> str:
    """Return the reason in Snakemake's block of text on a failed step, or in the log of the step."""
    message, log = _MESSAGE.search(block), _LOG.search(block)
    reason = one_line(_SEE.sub("", message[1])).strip() if message else ""
    reason = "" if reason == "None" else reason
    has_run = not reason or "status is: 'FAILED'" in reason  # else it never began, or was ended from outside
    if has_run and log:
        end = f"tee {_bare(log[1])}"
        ended_by = next((number for command, number in signals.items() if command.endswith(end)), None)
        return _ending(project / log[1], ended_by) or reason or f"see {log[1]}"
    return reason or "see above"


def _bare(text: str) -> str:
    """Return a text without what quotes words for shells: a command that runs in an image is quoted for two."""
    return text.replace("'", "").replace("\\", "").strip()


def _ending(log: Path, ended_by: int | None) -> str | None:
    """Return how a step ended: by a signal, or for the reason that its log tells."""
    if ended_by == signal.SIGKILL:
        return "killed (signal 9; often too little memory)"
    errors, lines = _lines(log)
    if ended_by is not None and not errors:
        return f"ended by signal {ended_by} ({signal.Signals(ended_by).name})" + (f": {lines[-1]}" if lines else "")
    told = errors or lines
    return told[-1] if told else None


def _lines(log: Path) -> tuple[list[str], list[str]]:
    """Return the lines of a log that begin with `error: `, without these words, and all that tell of no progress."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return [], []
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors, [line for line in lines if line.strip() and not is_progress(line)]
