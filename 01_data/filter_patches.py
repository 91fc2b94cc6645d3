#!/usr/bin/env python
"""Cut a volume into patches and keep those that are dense, or like patches of a target."""

import os
from pathlib import Path

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
python 01_data/filter_patches.py exm.zarr/volumes/raw mine/trainB --set scale=0.5
python 01_data/filter_patches.py a.zarr/volumes/raw mine/trainA --labels a.zarr/volumes/labels/neuron_ids \\
    --set least_density=null --set leave_out=[2,1,1]
python 01_data/filter_patches.py a.zarr/volumes/raw mine/trainA --set depth=32 --set patch=[96,96] \\
    --set likeness.target=exm.zarr/volumes/raw --set likeness.share=0.5 --stack
"""
)
@click.argument("volume", type=options.FILE)
@click.argument("to", metavar="FOLDER", type=options.FILE)
@click.option("--labels", type=options.FILE, help="Array of labels of the same voxels, whose patches are written too.")
@click.option("--stack", is_flag=True, help="Write patches.tif, with the axes (n, z, y, x), in place of a folder.")
@click.option("--config", type=options.FILE, help="A yaml file with keys of the filter.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Set a key of docs/transfer_data.md.")
@options.stated_grid("volume", "labels")
def main(
    volume: Path, to: Path, labels: Path | None, stack: bool, config: Path | None, overrides: tuple[str, ...]
) -> None:
    """Write the patches of the array VOLUME that the filter keeps into FOLDER, with a table and a picture of them.

    FOLDER/patches and FOLDER/labels are patches of a domain; FOLDER/boxes.json are boxes in VOLUME.
    """
    from emsuite.common.settings import load
    from emsuite.data.transfer.filtered_patches import filter_patches
    from emsuite.data.transfer.patch_filter import PatchFilter

    settings = load(PatchFilter, *([config] if config else []), overrides=overrides)
    kept, whole = filter_patches(volume, to, settings, labels=labels, stack=stack)
    click.echo(f"{to}: {kept} of {whole} blocks kept")


if __name__ == "__main__":
    main()
