# What all rules share: the checked configuration, and where files lie.

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "src"))
from emsuite.errors import BadInput
from emsuite.workflow import load_flow, run_with_own_python

run_with_own_python()

try:
    FLOW = load_flow(config, Path(workflow.basedir))
except BadInput as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

RESULT = f"{FLOW.results}/{{part}}"
LOG = f"{FLOW.results}/log"


def part_of(wildcards):
    """The scored part that a file belongs to."""
    return FLOW.test_parts[wildcards.part]


def masks_of(parts):
    """The files that say the volumes of these parts are there and masked."""
    return sorted({f"{part.volume}.masks.json" for part in parts})
