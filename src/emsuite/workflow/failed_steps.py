"""The reasons why steps of the workflow failed, from Snakemake's logs: one line each, shown at the end of a run."""

import logging
import re
from pathlib import Path

from emsuite.common.errors import one_line

_FAILED = re.compile(r"^Error in (?:rule|group) (\w+):\n(.*?)(?=^\[|^Error in |\Z)", re.MULTILINE | re.DOTALL)
_MESSAGE = re.compile(r"^    message: (.*?)(?=^    \w+:|\Z)", re.MULTILINE | re.DOTALL)
_LOG = re.compile(r"^    log: (.+?)(?: \(check log file.*)?$", re.MULTILINE)
_SEE = re.compile(r"For further error details see .*|^ +sbatch call:.*", re.MULTILINE | re.DOTALL)


class ErrorLog(logging.Handler):
    """Collects what Snakemake says of failed steps, even if it is told to be quiet about rules."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record, if it tells of a failed step or group."""
        if str(getattr(record, "event", "")).endswith(("JOB_ERROR", "GROUP_ERROR", "job_error", "group_error")):
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
        text: what Snakemake says of failed steps in its log.
        project: the folder from which this text names the logs of steps.
    """
    reasons = [one_line(f"{step}: {_reason(block, project)}") for step, block in _FAILED.findall(text)]
    return list(dict.fromkeys(reasons))


def _reason(block: str, project: Path) -> str:
    """Return the reason in Snakemake's block of text on a failed step, or in the log of the step."""
    message, log = _MESSAGE.search(block), _LOG.search(block)
    reason = one_line(_SEE.sub("", message[1])).strip() if message else ""
    reason = "" if reason == "None" else reason
    has_run = not reason or "status is: 'FAILED'" in reason  # else it never began, or was ended from outside
    if has_run and log:
        return _last_error(project / log[1]) or reason or f"see {log[1]}"
    return reason or "see above"


def _last_error(log: Path) -> str | None:
    """Return the last line of a log that begins with `error: `, or its last line, if any."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    candidates = errors or [line for line in lines if line.strip()]
    return candidates[-1] if candidates else None
