#!/usr/bin/env python
"""Fetch container images from S3: the suite's own, those of the original experiments, or any image by its key."""

import os
from pathlib import Path

try:
    import click

    from emsuite.cli import options
    from emsuite.cli.command import stage
    from emsuite.common.container_image import digest
    from emsuite.download.endpoint import Endpoint
    from emsuite.download.fetch import WORKERS
    from emsuite.workflow.container_images import fetch_image, find_image
except ModuleNotFoundError as error:
    if "EMSUITE_IMAGE" in os.environ:  # the image tells more
        raise
    raise SystemExit(f"error: {error}; expected the Python of .venv: . .venv/bin/activate, see README.md") from None

HERE = Path(__file__).resolve().parent


@stage(
    example="""
python containers/fetch_images.py lsd lsd_legacy
python containers/fetch_images.py s3://my-lab/images/emsuite.sif --sha256 53d1...
"""
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--sha256", help="SHA-256 that the image must have. [default: that in --known]")
@click.option("--out", type=options.FILE, default=HERE, help="Folder to fetch into.")
@click.option("--known", type=options.FILE, default=HERE / "images.yaml", help="Names, URLs and SHA-256 of images.")
@options.endpoint
@options.connections(WORKERS)
def main(images: tuple[str, ...], sha256: str | None, out: Path, known: Path, endpoint: Endpoint, workers: int) -> None:
    """Fetch each IMAGE, a name in --known or s3://BUCKET/KEY, into the folder OUT. Its file is named as the key ends.

    A run that was stopped can be repeated and continues. An image gets its name only when it is complete and verified.
    """
    for name in images:
        source = find_image(name, known, sha256)
        target = out / source.name
        how = fetch_image(source, target, endpoint, workers)
        click.echo(f"{target}: {how}; sha256 {digest(target)}")


if __name__ == "__main__":
    main()
