#!/usr/bin/env python
"""Score segmenters on a second look of a tissue: without transfer, with it, and with the look's own labels."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from table import Row, report
from table import save as save_option

from emsuite.cli.command import stage
from emsuite.common.errors import RunFailed
from emsuite.workflow.transfer import load_transfer_plan

ROOT = Path(__file__).resolve().parents[1]
GOAL = ">= 0.6 of the gap"
AS_IT_IS, OWN = "A as it is", "its own labels"
"""What the segmenters at both ends of the gap learn from."""


@stage(
    example="""
python benchmarks/downstream.py
python benchmarks/downstream.py --config transfer_iterations=300 --config segmenter_iterations=600
"""
)
@click.option(
    "--transfer",
    "networks",
    multiple=True,
    default=("fib25/ccgan_vanilla_small", "fib25/ccgan_seg_match_small"),
    show_default=True,
    help="Network of domain transfer, in 02_train.",
)
@click.option("--config", "keys", metavar="KEY=VALUE", multiple=True, help="Set a key of config/transfer.yaml.")
@save_option
def main(networks: tuple[str, ...], keys: tuple[str, ...], json_path: Path | None) -> None:
    """Run transfer.smk for each network, and print the scores of all segmenters on the second look.

    The gap is that of VOI between the segmenter of the first look as it is and that of the second look's own labels.
    """
    scores = {AS_IT_IS: run(networks[0], "as_it_is", keys), OWN: run(networks[0], "own", keys)}
    scores |= {f"A transferred, {Path(network).name}": run(network, "transferred", keys) for network in networks}
    report(rows(scores), json_path)


def run(network: str, arm: str, keys: Sequence[str]) -> dict[str, float]:
    """Return the best scores of a segmenter, after its steps of the workflow have run."""
    import yaml

    config = [*keys, f"transfer={network}", f"arms=[{arm}]"]
    command = [sys.executable, "-m", "snakemake", "--snakefile", "transfer.smk", "--cores", "all", "--config", *config]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise RunFailed(f"{network}, {arm}: the workflow failed, see above")
    content = yaml.safe_load((ROOT / "config/transfer.yaml").read_text())
    plan = load_transfer_plan(content | {key: yaml.safe_load(value) for key, value in split(config)}, ROOT)
    best: dict[str, float] = json.loads((ROOT / plan.segmenter_results(plan.arm_run(arm)) / "scores.json").read_text())[
        "best"
    ]
    return best


def split(config: Sequence[str]) -> list[tuple[str, str]]:
    """Return keys and values of texts KEY=VALUE."""
    return [(key, value) for key, _, value in (text.partition("=") for text in config)]


def rows(scores: dict[str, dict[str, float]]) -> list[Row]:
    """Return a row for each segmenter; its ratio is the part of the gap in VOI that it closes."""
    worst, best = scores[AS_IT_IS]["voi_sum"], scores[OWN]["voi_sum"]
    return [
        Row(
            f"FIB-25, second look, segmenter trained on {name}",
            f"VOI {one['voi_sum']:.3f} ({one['voi_split']:.3f} + {one['voi_merge']:.3f})",
            f"adapted Rand error {one['adapted_rand_error']:.3f}, mAP {one['average_precision']:.3f}",
            (worst - one["voi_sum"]) / (worst - best) if name not in (AS_IT_IS, OWN) and worst != best else None,
            GOAL if name not in (AS_IT_IS, OWN) else "",
        )
        for name, one in scores.items()
    ]


if __name__ == "__main__":
    main()
