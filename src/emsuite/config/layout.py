"""The folders of the project, counted from its root; their names stand here alone."""

from pathlib import Path

DATASETS = Path("01_data/datasets")
"""Holds a yaml file for each data set."""

NETWORKS = Path("02_train")
"""Holds `<dataset>/<network>/network.yaml`."""

RUNS = "runs"
"""Holds, in the folder of a network, a folder for each further training of it."""

DATA = Path("data")
"""Holds volumes, unless the workflow's configuration names another folder."""

CONTAINERS = Path("containers")
"""Holds images, and images.yaml, the list of images that can be fetched."""

EXAMPLE_NETWORK = NETWORKS / "fib25" / "small"
"""The folder of a network that messages show as an example."""
