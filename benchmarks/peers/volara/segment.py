"""Time volara on affinities: python segment.py PREDICTION.zarr/affs OUT WORKERS BLOCK CONTEXT, in voxels.

Mutex watershed in blocks, edges between fragments, mutex watershed of the graph, relabelled volume: as its README.
"""

import logging
import sys
from pathlib import Path

import numpy as np
from funlib.geometry import Coordinate
from funlib.persistence import open_ds
from volara.blockwise import AffAgglom, ExtractFrags, GraphMWS, Relabel
from volara.datasets import Affs, Labels
from volara.dbs import SQLite
from volara.lut import LUT

sys.path.append(str(Path(__file__).parents[1]))
from cost import print_cost

BIAS = -0.5
DEBRIS = 64  # voxels: the boundary's own would each become a fragment and a row of the database


def make_pipeline(path, out, workers, block, context):
    affs = Affs(store=path, neighborhood=[Coordinate(-1, 0, 0), Coordinate(0, -1, 0), Coordinate(0, 0, -1)])
    database = SQLite(path=out / "graph.sqlite", edge_attrs={"affinity": "float"})
    fragments, lookup = Labels(store=out / "volara.zarr/fragments"), LUT(path=out / "lookup.npz")
    roi = open_ds(path).roi
    in_blocks = {"db": database, "affs_data": affs, "frags_data": fragments, "block_size": Coordinate([block] * 3),
                 "context": Coordinate([context] * 3), "num_workers": workers}  # fmt: skip
    extract = ExtractFrags(bias=[BIAS] * 3, remove_debris=DEBRIS, **in_blocks)
    agglomerate = AffAgglom(scores={"affinity": affs.neighborhood}, **in_blocks)
    graph = GraphMWS(db=database, lut=lookup, weights={"affinity": (1.0, BIAS)}, roi=[roi.begin, roi.shape])
    relabel = Relabel(frags_data=fragments, seg_data=Labels(store=out / "volara.zarr/segments"), lut=lookup,
                      block_size=in_blocks["block_size"], num_workers=workers)  # fmt: skip
    return extract + agglomerate + graph + relabel


def main():
    logging.disable(logging.WARNING)
    path, out, (workers, block, context) = Path(sys.argv[1]), Path(sys.argv[2]), map(int, sys.argv[3:])
    pipeline = make_pipeline(path, out, workers, block, context)
    counts = {}

    def segment():
        pipeline.run_blockwise(multiprocessing=True)
        counts["segments"] = int(np.count_nonzero(np.unique(open_ds(out / "volara.zarr/segments")[:])))

    print_cost(segment, more=counts)


if __name__ == "__main__":
    main()
