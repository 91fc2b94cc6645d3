# The parts that all rules share: the checked configuration (PLAN), paths, and functions for params and inputs.

import os
import sys
from pathlib import Path

from snakemake.settings.types import DeploymentMethod
from snakemake_interface_executor_plugins.settings import ExecMode

PROJECT = Path(str(workflow.current_basedir)).resolve()
sys.path.insert(0, str(PROJECT / "src"))
from emsuite.common.errors import EmsuiteError
from emsuite.common.process import ends_with_this_process
from emsuite.common.settings import as_options
from emsuite.data.labels_mask import masks_path
from emsuite.data.membranes import labels_path
from emsuite.workflow.environment import (
    BEFORE_STEPS,
    prepare_image,
    run_with_own_python,
)
from emsuite.workflow.failed_steps import collect_errors, failed_steps
from emsuite.workflow.inputs import changed_inputs, log_name, note_inputs
from emsuite.workflow.plan import load_plan
from emsuite.workflow.run_summary import run_summary
from emsuite.workflow.step_orders import StepOrders

run_with_own_python()
ERRORS = collect_errors()

if workflow.exec_mode != ExecMode.SUBPROCESS:
    os.environ.update(ends_with_this_process())

shell.prefix(BEFORE_STEPS)

# Whether steps run in an image. The main process checks the image once; jobs on a cluster need not check it again.
IN_IMAGE = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method

try:
    PLAN = load_plan(config, PROJECT)
    ORDERS = StepOrders(PLAN)
    if IN_IMAGE and workflow.exec_mode == ExecMode.DEFAULT:
        prepare_image(PLAN)
    if workflow.exec_mode == ExecMode.DEFAULT:
        ORDERS.write_all()
        for path in changed_inputs(PLAN):
            print(
                f"{path}: changed since the last run; the steps that read it run again",
                file=sys.stderr,
            )
except EmsuiteError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)

# Each step checks the image that it runs in. Commands of onsuccess and onerror run outside the image.
if IN_IMAGE:
    shell.prefix(
        BEFORE_STEPS
        + '[ -z "${{APPTAINER_CONTAINER:-${{SINGULARITY_CONTAINER:-}}}}" ] || python containers/check.py || exit 2; '
    )

# Each rule has the order of its step as an input, and hands its digest on to the manifests of its outputs.


def order_file(step):
    """Return a function of a rule's wildcards that returns the file of its order."""
    return lambda wildcards: step(wildcards).files


def order_digest(step):
    """Return a function of a rule's wildcards that returns the digest of its order."""
    return lambda wildcards: step(wildcards).digest


def volume_order(wildcards):
    """Return the order to fetch or synthesize a volume."""
    return ORDERS.volume(wildcards.volume)


def training_order(wildcards):
    """Return the order to train a network."""
    return ORDERS.train(wildcards.network, int(wildcards.iterations))


RESULT = f"{PLAN.results}/{{part}}"
LOG = f"{PLAN.results}/log"


def part_of(wildcards):
    """Return the scored part that a file belongs to."""
    return PLAN.test_parts[wildcards.part]


# Snakemake does not track values returned by functions that take `resources`. Settings that affect how a file is
# computed but not its content (device, download source) go through such functions, so that changing them does not
# re-run anything.


def device(wildcards, resources):
    """Return the device that computes."""
    return PLAN.config.device


def source_option(wildcards, resources):
    """Return the option that names the shared folder to copy a volume from, or nothing to download it."""
    return PLAN.source_option(wildcards.volume)


def if_changed(wildcards, resources):
    """Return what happens to checkpoints of other settings."""
    return PLAN.config.if_changed
