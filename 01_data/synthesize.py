#!/usr/bin/env python
"""Make a phantom: a synthetic EM volume of neuropil with labels and skeletons."""

import os
from pathlib import Path
from typing import Any

try:
    import click

    from emsuite.cli import options
    from emsuite.cli.command import stage
except ModuleNotFoundError as error:
    if "EMSUITE_IMAGE" in os.environ:  # the image tells more
        raise
    raise SystemExit(f"error: {error}; expected the Python of .venv: . .venv/bin/activate, see README.md") from None


@stage(
    example="""
python 01_data/synthesize.py --out data/funke/phantom/training/mine.zarr --seed 7
python 01_data/synthesize.py --out sections.zarr --voxel-size 40,4,4 --shape 40,400,400 \\
    --missing-sections 0.05 --shifted-sections 0.1 --max-shift 40
python 01_data/synthesize.py --out sections.hdf --voxel-size 40,4,4 --shape 40,400,400 --padding 4,40,40
"""
)
@click.option("--out", metavar="VOLUME", required=True, type=options.FILE, help="The volume to make, .zarr or .hdf.")
@options.phantom_settings
def main(out: Path, **chosen: Any) -> None:
    """Make VOLUME with volumes/raw and volumes/labels/neuron_ids, and its .skeletons beside it.

    A name that ends in .hdf makes one HDF5 file, in the layout of CREMI's. The same options give the same bytes, on any
    number of processors.
    """
    from emsuite.common.outputs import is_finished, output
    from emsuite.common.progress import progress
    from emsuite.data.labels_mask import remove_mask
    from emsuite.io.fingerprint import seen, seen_arrays
    from emsuite.phantom.settings import PhantomSettings
    from emsuite.phantom.synthesize import STEPS, synthesize
    from emsuite.phantom.volume_file import check_suffix, write_phantom

    check_suffix(out)
    settings, skeletons = PhantomSettings.of(**chosen), out.with_suffix(".skeletons")
    record, upgrade = settings.model_dump(), PhantomSettings.completed
    if is_finished(out, record, upgrade) and is_finished(skeletons, record, upgrade):
        click.echo(f"{out}: already there, made with the same settings")
        return
    remove_mask(out)
    with output(out, record, seed=settings.seed) as volume, output(skeletons, record, seed=settings.seed) as lines:
        with progress(total=STEPS, what="synthesize", unit="step") as bar:
            phantom = synthesize(settings, bar.update)
        write_phantom(phantom, out, settings)
        phantom.skeletons.save(skeletons)
        volume.notes["arrays"], lines.notes["arrays"] = seen_arrays(out), {".": seen(skeletons)}
    click.echo(f"{out}: {phantom.neurons} neurons; skeletons in {skeletons}")


if __name__ == "__main__":
    main()
