# The parts that all rules of the Snakefile share: the checked configuration (PLAN), paths, and functions for params and inputs.

from snakemake.settings.types import DeploymentMethod

from emsuite.common.settings import as_options
from emsuite.data.labels_mask import masks_path
from emsuite.data.membranes import labels_path
from emsuite.workflow.environment import prepare_image
from emsuite.workflow.inputs import changed_inputs, log_name, note_inputs
from emsuite.workflow.plan import load_plan
from emsuite.workflow.run_summary import run_summary
from emsuite.workflow.step_orders import StepOrders

# Whether steps run in an image. The main process checks the image once; jobs on a cluster need not check it again.
IN_IMAGE = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method

with errors_in_one_line():
    PLAN = load_plan(config, PROJECT)
    ORDERS = StepOrders(PLAN)
    if IN_IMAGE and workflow.exec_mode == ExecMode.DEFAULT:
        prepare_image(PLAN)
    if workflow.exec_mode == ExecMode.DEFAULT:
        ORDERS.write_all()
        for path in changed_inputs(PLAN):
            tell_changed(path)

# Each step checks the image that it runs in. Commands of onsuccess and onerror run outside the image.
if IN_IMAGE:
    shell.prefix(
        BEFORE_STEPS
        + '[ -z "${{APPTAINER_CONTAINER:-${{SINGULARITY_CONTAINER:-}}}}" ] || python containers/check.py || exit 2; '
    )


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


def source_option(wildcards, resources):
    """Return the option that names the shared folder to copy a volume from, or nothing to download it."""
    return PLAN.volumes.source_option(wildcards.volume, PLAN.config.shared)
