# What all rules share: the checked configuration, and where files lie.

import sys
from pathlib import Path

from snakemake.settings.types import DeploymentMethod
from snakemake_interface_executor_plugins.settings import ExecMode

PROJECT = Path(str(workflow.current_basedir)).resolve()
sys.path.insert(0, str(PROJECT / "src"))
from emsuite.common.errors import EmsuiteError
from emsuite.workflow.failed_steps import failed_steps
from emsuite.workflow.plan import load_plan, prepare_image, run_with_own_python

run_with_own_python()

# Steps run in an image; the job that a step is (on a cluster, say) need not look at it again.
IN_IMAGE = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method

try:
    PLAN = load_plan(config, PROJECT)
    if IN_IMAGE and workflow.exec_mode == ExecMode.DEFAULT:
        prepare_image(PLAN)
except EmsuiteError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)

# Each step looks at the image that it is in; what Snakemake itself does when all is done is in none.
if IN_IMAGE:
    shell.prefix(
        '[ -z "${{APPTAINER_CONTAINER:-${{SINGULARITY_CONTAINER:-}}}}" ] || python containers/check.py || exit 2; '
    )

RESULT = f"{PLAN.results}/{{part}}"
LOG = f"{PLAN.results}/log"


def part_of(wildcards):
    """The scored part that a file belongs to."""
    return PLAN.test_parts[wildcards.part]


# Snakemake does not compare what functions of `resources` return with what it was in an earlier run. So what says how
# something is made, but not what, makes nothing anew.


def device(wildcards, resources):
    """What computes."""
    return PLAN.config.device


def source_option(wildcards, resources):
    """Where a volume is copied from rather than downloaded."""
    return PLAN.source_option(wildcards.volume)


def masks_of(parts):
    """The files that say the volumes of these parts are there and masked."""
    return sorted({f"{part.volume}.masks.json" for part in parts})
