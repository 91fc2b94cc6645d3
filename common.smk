# What all rules share: the checked configuration, and where files lie.

import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "src"))
from emsuite.errors import BadInput
from emsuite.workflow import load_flow

# Stage scripts run with the Python that runs Snakemake, unless they run in a container.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

try:
    FLOW = load_flow(config, Path(workflow.basedir))
except BadInput as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

RESULT = FLOW.results / "{part}"
LOG = FLOW.results / "log"


def part_of(wildcards):
    """The scored part that a file belongs to."""
    return FLOW.test_parts[wildcards.part]


def masks_of(parts):
    """The files that say the volumes of these parts are there and masked."""
    return sorted({f"{part.volume}.masks.json" for part in parts})
