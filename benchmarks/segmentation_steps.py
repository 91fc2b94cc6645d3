"""Command lines of the scripts of 04_segment, from affinities to a segmentation at one threshold."""

import sys
from collections.abc import Sequence
from pathlib import Path

BLOCK, CONTEXT, THRESHOLD = 128, 32, 0.5  # block and context in voxels; threshold of the segmentation
_SCRIPTS = Path(__file__).resolve().parents[1] / "04_segment"


def commands(
    affs: Path,
    out: Path,
    voxel_size: Sequence[int],
    workers: Sequence[object],
    block_width: int = BLOCK,
    context_width: int = CONTEXT,
) -> dict[str, list[str]]:
    """Return the command of each step by name, in order; `workers` is `["--workers", 2]`, widths are in voxels."""
    block, context = (",".join(str(n * v) for v in voxel_size) for n in (block_width, context_width))
    fragments, graph, lookup = out / "fragments.zarr/fragments", out / "graph", out / "lookup"
    steps = {
        "extract_fragments": ["--affs", affs, "--out", out, "--flood", "distance", "--block-size", block,
                              "--context", context, *workers],
        "agglomerate": ["--affs", affs, "--fragments", fragments, "--out", graph / "edges", "--context", context,
                        "--merge-function", "hist_quant_50", *workers],
        "find_segments": ["--nodes", graph / "nodes", "--edges", graph / "edges", "--out", lookup,
                          "--thresholds", f"{THRESHOLD},{THRESHOLD},1"],
        "extract_segmentation": ["--fragments", fragments, "--lookup", lookup, "--threshold", THRESHOLD,
                                 "--out", out / "segmentation.zarr", *workers],
    }  # fmt: skip
    return {name: [sys.executable, str(_SCRIPTS / f"{name}.py"), *map(str, words)] for name, words in steps.items()}
