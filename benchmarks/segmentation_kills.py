#!/usr/bin/env python
"""Kill processes of a segmentation at random moments: the output must have the same bytes, and no process stays."""

import filecmp
import random
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import psutil
from measure import run
from segmentation_steps import commands
from table import Row, report
from table import save as save_option

from emsuite.cli.command import stage
from emsuite.common.errors import RunFailed

PARTS = ("fragments.zarr", "graph/nodes", "graph/edges", "lookup", "segmentation.zarr")


@stage(example="python benchmarks/segmentation_kills.py --prediction results/fib25/small/PART/prediction.zarr/affs")
@click.option("--prediction", type=click.Path(path_type=Path), metavar="ARRAY", required=True,
              help="Affinities (3, Z, Y, X) uint8.")  # fmt: skip
@click.option("--kills", default=20, help="Total number of kills.")
@click.option("--seed", default=0, help="Seed of the moments and of the choice of processes.")
@save_option
def main(prediction: Path, kills: int, seed: int, json_path: Path | None) -> None:
    """Segment twice; in the second run, kill the stage or one of its processes again and again."""
    from emsuite.io.volume import open_volume

    affs, voxel_size = prediction.resolve(), tuple(open_volume(prediction).voxel_size)
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        quiet, killed = Path(temporary) / "quiet", Path(temporary) / "killed"
        for command in commands(affs, quiet, voxel_size, ["--workers", 2]).values():
            run(command)
        left, runs = kills, 0
        for name, command in commands(affs, killed, voxel_size, ["--workers", 2]).items():
            share = {"extract_fragments": 0.5, "agglomerate": 0.5, "find_segments": 0.2}.get(name, 1)
            done, more = until_done(command, round(left * share), dice)
            left, runs = left - done, runs + more
        differing = [part for part in PARTS if not same(quiet / part, killed / part)]
    what = f"segmentation, {kills - left} kills at random moments, {runs} runs of its four steps"
    report([Row(what, f"{len(differing)} of {len(PARTS)} outputs differ", goal="0")], json_path)


def until_done(command: Sequence[str], kills: int, dice: random.Random) -> tuple[int, int]:
    """Run a command until it succeeds. Return the number of kills and the number of runs."""
    done = 0
    for runs in range(1, 10 + 2 * kills):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        family: set[psutil.Process] = set()
        while child.poll() is None:
            time.sleep(dice.uniform(0, 1.5))
            try:
                family |= {psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)}
                if done < kills:
                    dice.choice(sorted((p for p in family if p.is_running()), key=lambda p: p.pid)).kill()
                    done += 1
            except (psutil.NoSuchProcess, IndexError):
                continue
        _, alive = psutil.wait_procs(family, timeout=5)
        if alive:
            raise RunFailed(f"{Path(command[1]).name}: {len(alive)} processes outlived it")
        if child.returncode == 0:
            return done, runs
    raise RunFailed(f"{Path(command[1]).name}: does not end")


def same(one: Path, other: Path) -> bool:
    """Return whether two folders hold the same files with the same bytes."""
    names = [{str(p.relative_to(top)) for p in top.rglob("*") if p.is_file()} for top in (one, other)]
    return names[0] == names[1] and not any(filecmp.cmpfiles(one, other, sorted(names[0]), shallow=False)[1:])


if __name__ == "__main__":
    main()
