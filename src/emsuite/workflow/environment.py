"""What the steps of the workflow run in: the image, its folders and variables, or the Python that runs Snakemake."""

import os
import sys
from pathlib import Path

from emsuite.common.container_image import check_image, container_program
from emsuite.common.errors import BadInput
from emsuite.common.provenance import git_commit
from emsuite.config.layout import CONTAINERS
from emsuite.workflow.container_images import fetch_image, find_image
from emsuite.workflow.plan import WorkflowPlan

BEFORE_STEPS = 'set -euo pipefail; tee() {{ command tee -i "$@"; }}; '
"""In front of each step's command, in the place of Snakemake's own: without `pipefail`, a step would end as well as its
`tee`. A Ctrl-C would end `tee` too, before the step has saved its work."""


def prepare_image(plan: WorkflowPlan) -> None:
    """Fetch the image if it comes from S3, and check that it can be used.

    Steps learn its digest and the git commit from environment variables, and see the folders outside the project that
    the configuration names. An image that Apptainer fetches from a URI is checked by the steps alone.

    Raises:
        BadInput: the image is missing, or is of another version than the project.
        RunFailed: fetching failed.
    """
    bind = f"{container_program().upper()}_BIND"
    for folder in plan.outside_folders:
        if {",", ":"} & set(str(folder)):
            raise BadInput(f"{folder}: cannot be shown inside an image, expected a folder without commas and colons")
    folders = [os.environ.get(bind, ""), *map(str, plan.outside_folders)]
    os.environ[bind] = ",".join(filter(None, folders))
    if commit := git_commit():
        os.environ["EMSUITE_GIT_COMMIT"] = commit
    file = plan.image.file
    if file is None:
        return
    if plan.image.s3 and not file.exists():
        fetch_image(find_image(plan.image.s3, plan.project / CONTAINERS / "images.yaml"), file)
    os.environ["EMSUITE_IMAGE_DIGEST"] = check_image(file, plan.project)


def run_with_own_python() -> None:
    """Make stage scripts run with the Python that runs Snakemake, even if its environment is not active."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
