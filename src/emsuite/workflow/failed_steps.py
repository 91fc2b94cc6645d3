"""Why steps of the workflow failed, out of what Snakemake wrote about them: one line each, for the end of a run."""

import re
from collections.abc import Sequence
from pathlib import Path

from emsuite.common.errors import one_line

_FAILED = re.compile(r"^Error in (?:rule|group) (\w+):\n(.*?)(?=^\[|^Error in |\Z)", re.MULTILINE | re.DOTALL)
_MESSAGE = re.compile(r"^    message: (.*?)(?=^    \w+:|\Z)", re.MULTILINE | re.DOTALL)
_LOG = re.compile(r"^    log: (.+?)(?: \(check log file.*)?$", re.MULTILINE)
_SEE = re.compile(r"For further error details see .*|^ +sbatch call:.*", re.MULTILINE | re.DOTALL)


def failed_steps(logs: Sequence[Path | str], project: Path) -> list[str]:
    """`step: why`, once each, from the logs of a run of Snakemake; those of steps are named there from `project`."""
    text = "\n".join(Path(log).read_text(encoding="utf-8", errors="replace") for log in logs)
    return list(dict.fromkeys(f"{step}: {_reason(told, project)}" for step, told in _FAILED.findall(text)))


def _reason(told: str, project: Path) -> str:
    message, log = _MESSAGE.search(told), _LOG.search(told)
    why = one_line(_SEE.sub("", message[1])).strip() if message else ""
    why = "" if why == "None" else why
    ran = not why or "status is: 'FAILED'" in why  # else it never began, or was ended from outside
    if ran and log:
        return _last_error(project / log[1]) or why or f"see {log[1]}"
    return why or "see above"


def _last_error(log: Path) -> str | None:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    said = errors or [line for line in lines if line.strip()]
    return said[-1] if said else None
