"""The reasons why steps of the workflow failed, from Snakemake's logs: one line each, shown at the end of a run."""

import re
from collections.abc import Sequence
from pathlib import Path

from emsuite.common.errors import one_line

_FAILED = re.compile(r"^Error in (?:rule|group) (\w+):\n(.*?)(?=^\[|^Error in |\Z)", re.MULTILINE | re.DOTALL)
_MESSAGE = re.compile(r"^    message: (.*?)(?=^    \w+:|\Z)", re.MULTILINE | re.DOTALL)
_LOG = re.compile(r"^    log: (.+?)(?: \(check log file.*)?$", re.MULTILINE)
_SEE = re.compile(r"For further error details see .*|^ +sbatch call:.*", re.MULTILINE | re.DOTALL)


def failed_steps(logs: Sequence[Path | str], project: Path) -> list[str]:
    """Return a text `step: reason` for each failed step, without duplicates.

    Args:
        logs: the logs of one run of Snakemake.
        project: the folder from which these logs name the logs of steps.
    """
    text = "\n".join(Path(log).read_text(encoding="utf-8", errors="replace") for log in logs)
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
