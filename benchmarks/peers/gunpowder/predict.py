"""Time the prediction of a volume: python predict.py RAW NETWORK.pt TILE STEP OFFSET; shapes in voxels, as z,y,x.

Tiles of TILE voxels of raw yield STEP voxels of affinities that begin OFFSET voxels inside, written as uint8.
Source: funkelab/lsd_nm_experiments, predict.py of its networks, with torch's Predict.
"""

import logging
import sys
import tempfile
import warnings
from pathlib import Path

import gunpowder as gp
import torch

sys.path.append(str(Path(__file__).parents[1]))
from cost import print_cost

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")


def predict(raw_path, network, tile, step, offset, out):
    raw, affs = gp.ArrayKey("RAW"), gp.ArrayKey("AFFS")
    container, _, name = str(raw_path).partition(".zarr/")
    source = gp.ZarrSource(container + ".zarr", {raw: name}, {raw: gp.ArraySpec(interpolatable=True)})
    with gp.build(source):
        total, voxel_size = source.spec[raw].roi, source.spec[raw].voxel_size
    scan = gp.BatchRequest()
    scan[raw] = gp.Roi((0, 0, 0), tile * voxel_size)
    scan[affs] = gp.Roi(offset * voxel_size, step * voxel_size)
    pipeline = (
        gp.ZarrSource(container + ".zarr", {raw: name}, {raw: gp.ArraySpec(interpolatable=True)})
        + gp.Normalize(raw)
        + gp.Pad(raw, tile * voxel_size, mode="reflect")
        + gp.IntensityScaleShift(raw, 2, -1)
        + gp.Unsqueeze([raw])
        + gp.Unsqueeze([raw])
        + gp.torch.Predict(
            network, {0: raw}, {0: affs}, {affs: gp.ArraySpec(roi=total, voxel_size=voxel_size)}, device="cpu"
        )
        + gp.Squeeze([affs])
        + gp.IntensityScaleShift(affs, 255, 0)
        + gp.ZarrWrite({affs: "affs"}, store=out, compression_type=None, dataset_dtypes={affs: "uint8"})
        + gp.Scan(scan, progress_callback=gp.nodes.scan.ScanCallback())
    )
    with gp.build(pipeline):
        pipeline.request_batch(gp.BatchRequest())


def main():
    raw, network = Path(sys.argv[1]), torch.jit.load(sys.argv[2])
    tile, step, offset = (gp.Coordinate(int(n) for n in word.split(",")) for word in sys.argv[3:])
    with tempfile.TemporaryDirectory() as folder:
        print_cost(lambda: predict(raw, network, tile, step, offset, f"{folder}/prediction.zarr"))


if __name__ == "__main__":
    main()
