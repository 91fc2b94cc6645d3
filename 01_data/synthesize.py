#!/usr/bin/env python
"""Make a phantom: a synthetic EM volume of neuropil with labels and skeletons."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import click

    from emsuite.cli import options
    from emsuite.cli.command import stage
    from emsuite.common.errors import BadInput
except ModuleNotFoundError as error:
    if "EMSUITE_IMAGE" in os.environ:  # the image tells more
        raise
    raise SystemExit(f"error: {error}; expected the Python of .venv: . .venv/bin/activate, see README.md") from None

if TYPE_CHECKING:
    from emsuite.phantom.synthesize import Phantom


def write(phantom: "Phantom", volume: Path, voxel_size: tuple[int, int, int]) -> None:
    """Write raw and labels of the volume."""
    from emsuite.io.volume import create_volume

    for name, voxels in (("raw", phantom.raw), ("labels/neuron_ids", phantom.labels)):
        array = create_volume(volume / "volumes" / name, voxels.shape, voxels.dtype, voxel_size, (0, 0, 0))
        array.write(array.roi, voxels)


@stage(
    example="""
python 01_data/synthesize.py --out data/funke/phantom/training/mine.zarr --seed 7
python 01_data/synthesize.py --out sections.zarr --voxel-size 40,4,4 --shape 40,400,400 \\
    --missing-sections 0.05 --shifted-sections 0.1 --max-shift 40
"""
)
@click.option("--out", metavar="VOLUME.zarr", required=True, type=options.FILE, help="The volume to make.")
@options.phantom_settings
def main(out: Path, **chosen: Any) -> None:
    """Make VOLUME.zarr with volumes/raw and volumes/labels/neuron_ids, and VOLUME.skeletons beside it.

    The same options give the same bytes, on any number of processors.
    """
    from emsuite.common.outputs import is_finished, output
    from emsuite.common.progress import progress
    from emsuite.io.fingerprint import seen, seen_arrays
    from emsuite.phantom.settings import PhantomSettings
    from emsuite.phantom.synthesize import STEPS, synthesize

    if out.suffix != ".zarr":
        raise BadInput(f"--out {out}: expected a name that ends in .zarr")
    settings, skeletons = PhantomSettings.of(**chosen), out.with_suffix(".skeletons")
    record = settings.model_dump()
    if is_finished(out, record) and is_finished(skeletons, record):
        click.echo(f"{out}: already there, made with the same settings")
        return
    with output(out, record, seed=settings.seed) as volume, output(skeletons, record, seed=settings.seed) as lines:
        with progress(total=STEPS, what="synthesize", unit="step") as bar:
            phantom = synthesize(settings, bar.update)
        write(phantom, out, settings.voxel_size)
        phantom.skeletons.save(skeletons)
        volume.notes["arrays"], lines.notes["arrays"] = seen_arrays(out), {".": seen(skeletons)}
    click.echo(f"{out}: {int(phantom.labels.max())} neurons; skeletons in {skeletons}")


if __name__ == "__main__":
    main()
