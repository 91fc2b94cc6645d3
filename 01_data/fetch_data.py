#!/usr/bin/env python
"""Fetch volumes of a data set from its public bucket or its web server, or from a shared folder."""

import os
from functools import partial
from pathlib import Path
from typing import Any

try:
    import click

    from emsuite.cli import options
    from emsuite.cli.command import stage
    from emsuite.common.errors import BadInput
    from emsuite.download.endpoint import Endpoint
    from emsuite.download.fetch import WORKERS, fetch_prefix
except ModuleNotFoundError as error:
    if "EMSUITE_IMAGE" in os.environ:  # the image tells more
        raise
    raise SystemExit(f"error: {error}; expected the Python of .venv: . .venv/bin/activate, see README.md") from None

HERE = Path(__file__).resolve().parent


@stage(
    example="""
python 01_data/fetch_data.py --dataset fib25 --from /lab/shared
python 01_data/fetch_data.py --dataset hemi --all --out /scratch/data
"""
)
@click.option("-d", "--dataset", help="Name, or a yaml file. [default: that of the folder you stand in, or fib25]")
@click.option("--volume", "volumes", multiple=True, help="May be repeated. [default: first volume, test split]")
@click.option("--all", "everything", is_flag=True, help="Fetch all volumes of the data set.")
@click.option("--out", type=options.FILE, default=HERE.parent / "data", help="Data folder to fetch into.")
@click.option("--bucket", help="Another bucket, with the same layout. [default: the data set's]")
@options.endpoint
@click.option("--from", "shared", type=options.FILE, help="Copy from this folder instead of a bucket.")
@options.connections(WORKERS)
def main(
    dataset: str | None,
    volumes: tuple[str, ...],
    everything: bool,
    out: Path,
    bucket: str | None,
    endpoint: Endpoint,
    shared: Path | None,
    workers: int,
) -> None:
    """Fetch volumes into OUT/funke/<dataset>/training/; continue where an earlier run stopped."""
    from emsuite.config.dataset import default_dataset, load_dataset
    from emsuite.download.fetch_file import fetch_file
    from emsuite.download.object_store import FolderStore, S3Store
    from emsuite.download.web_store import WebStore

    data = load_dataset(dataset or default_dataset(Path.cwd()), HERE / "datasets")
    chosen = data.choose(volumes, everything)
    if not (dataset and (volumes or everything)):
        click.echo(f"by default: --dataset {data.name} --volume {' --volume '.join(chosen)}")
    for volume in chosen:
        target, file = data.volume_path(volume, out), data.files.get(volume)
        if shared is not None:
            store, key = FolderStore(shared, workers), str(data.find_in(shared, volume).relative_to(shared))
        elif file is not None and bucket is None:
            store, key = WebStore(endpoint), file.url
        else:
            store = S3Store(bucket or bucket_of(data, volume, target), endpoint, workers)
            key = f"{data.prefix}/{target.name}"
        copy = fetch_prefix if target.suffix == ".zarr" else partial(fetch_file, sha256=file.sha256 if file else "")
        expected = data.contents[volume].model_dump(exclude_none=True) if volume in data.contents else None
        done = copy(store, key, target, expected=expected, workers=workers)
        click.echo(f"{target}: complete, {done.objects} objects, {done.transferred} fetched now")


def bucket_of(data: Any, volume: str, target: Path) -> str:
    """Return the data set's bucket; without one, raise BadInput that says what to do instead."""
    if data.synthesis:
        made = f"python 01_data/synthesize.py --out {target} {' '.join(data.synthesis_options(volume))}"
        raise BadInput(f"{data.name} is not fetched but made: {made}")
    if not data.bucket:
        raise BadInput(f"{data.name} lies in no bucket; give --from FOLDER or --bucket")
    return data.bucket


if __name__ == "__main__":
    main()
