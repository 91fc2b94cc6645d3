# What all workflows begin with: the library of this folder and its Python, and functions for params and inputs.

import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from snakemake_interface_executor_plugins.settings import ExecMode

PROJECT = Path(str(workflow.current_basedir)).resolve()
sys.path.insert(0, str(PROJECT / "src"))
from emsuite.common.errors import EmsuiteError, of_file_system, one_line
from emsuite.common.process import ends_with_this_process
from emsuite.workflow.environment import BEFORE_STEPS, run_with_own_python
from emsuite.workflow.failed_steps import collect_errors, failed_steps

run_with_own_python()
ERRORS = collect_errors()
IS_LINT = "--lint" in sys.argv  # it runs without volumes

if workflow.exec_mode != ExecMode.SUBPROCESS:
    os.environ.update(ends_with_this_process())

shell.prefix(BEFORE_STEPS)


@contextmanager
def errors_in_one_line():
    """End the run with one line if the plan within the block is wrong."""
    try:
        yield
    except EmsuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # as a file of another user
        message, code = of_file_system(error)
        print(f"error: {one_line(message)}", file=sys.stderr)
        sys.exit(code)


def tell_changed(path):
    """Say that an input is another than the last run has seen."""
    print(
        f"{path}: changed since the last run; the steps that read it run again",
        file=sys.stderr,
    )


# Each rule has the order of its step as an input, and hands its digest on to the manifests of its outputs.


def order_file(step):
    """Return a function of a rule's wildcards that returns the file of its order."""
    return lambda wildcards: step(wildcards).files


def order_digest(step):
    """Return a function of a rule's wildcards that returns the digest of its order."""
    return lambda wildcards: step(wildcards).digest


def settle(orders):
    """Note in the files of orders which steps have done by now what was asked."""
    with suppress(EmsuiteError, OSError):
        orders.write_all()


def waited_for(order, files):
    """Return files that a step waits for without reading them: new ones do not run it.

    Snakemake does not ask whether a step must run behind one that runs, if all it takes from there is ancient. So a
    step whose order asks for it takes them as they are.
    """
    return files if order.is_due else [ancient(file) for file in files]


# Snakemake does not track values returned by functions that take `resources`. Settings that affect how a file is
# computed but not its content (device, download source) go through such functions, so that changing them does not
# re-run anything.


def device(wildcards, resources):
    """Return the device that computes."""
    return PLAN.config.device


def if_changed(wildcards, resources):
    """Return what happens to checkpoints of other settings or data."""
    return PLAN.config.if_changed


onerror:
    for reason in failed_steps(ERRORS.text, PROJECT):
        print(f"error: {reason}", file=sys.stderr)
