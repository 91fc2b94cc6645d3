#!/usr/bin/env python
"""Fetch the published weights of a network from the public bucket and convert them to this suite's checkpoints."""

import os
from pathlib import Path

try:
    import click

    from emsuite.cli import options
    from emsuite.cli.command import stage
    from emsuite.common.errors import BadInput
    from emsuite.config.layout import NETWORKS
    from emsuite.download.endpoint import Endpoint
    from emsuite.download.fetch import WORKERS
except ModuleNotFoundError as error:
    if "EMSUITE_IMAGE" in os.environ:  # the image tells more
        raise
    raise SystemExit(f"error: {error}; expected the Python of .venv: . .venv/bin/activate, see README.md") from None

ROOT = Path(__file__).resolve().parents[1]


@stage(
    example="""
python 01_data/fetch_checkpoint.py --dataset zebrafinch --network mtlsd
python 01_data/fetch_checkpoint.py --dataset fib25 --all
python 01_data/fetch_checkpoint.py --local old/train_net_checkpoint_400000 02_train/zebrafinch/mtlsd
"""
)
@click.option("-d", "--dataset", help="Data set whose networks were published: zebrafinch, fib25 or hemi.")
@click.option("--network", "networks", multiple=True, help="Network to fetch. May be repeated.")
@click.option("--all", "everything", is_flag=True, help="Fetch all published networks of the data set.")
@click.option(
    "--local",
    type=(options.FILE, options.FILE),
    metavar="PREFIX NETWORK_DIR",
    help="Convert a checkpoint on this machine.",
)
@click.option("--with-optimizer/--without-optimizer", default=True, help="Whether Adam's moments come along.")
@click.option("--out", type=options.FILE, default=ROOT / "data", help="Data folder to fetch into.")
@click.option("--bucket", default="open-neurodata", help="Bucket to fetch from; it must have the same layout.")
@options.endpoint
@click.option("--networks-dir", type=options.FILE, default=ROOT / NETWORKS, help="Folder of DATASET/NETWORK folders.")
@options.connections(WORKERS)
def main(
    dataset: str | None,
    networks: tuple[str, ...],
    everything: bool,
    local: tuple[Path, Path] | None,
    with_optimizer: bool,
    out: Path,
    bucket: str,
    endpoint: Endpoint,
    networks_dir: Path,
    workers: int,
) -> None:
    """Write published weights to 02_train/<dataset>/<network>/checkpoints/, to predict with or to continue training.

    aclsd and acrlsd read the descriptors of lsd, so that lsd is fetched with them. A stopped run is continued. The
    fetched files stay in OUT.
    """
    from emsuite.download.object_store import S3Store
    from emsuite.published.published import convert, fetch_published, published_networks, with_frozen_networks

    if local is not None:
        if dataset or networks or everything:
            raise BadInput("--local converts one checkpoint into the folder it names; expected no --dataset, --network")
        click.echo(f"{convert(*local, with_optimizer)}: converted")
        return
    if not (dataset or networks or everything) and (Path.cwd() / "network.yaml").exists():
        dataset, networks, networks_dir = Path.cwd().parent.name, (Path.cwd().name,), Path.cwd().parents[1]
        click.echo(f"by default: --dataset {dataset} --network {networks[0]}")
    if dataset is None or bool(networks) == everything:
        raise BadInput("expected --dataset with --network or --all, or --local PREFIX NETWORK_DIR")
    store, folder = S3Store(bucket, endpoint, workers), networks_dir / dataset
    for name, iteration in with_frozen_networks(networks or published_networks(store, dataset, folder), folder):
        prefix, source = fetch_published(store, dataset, name, out, workers, iteration)
        click.echo(f"{convert(prefix, folder / name, with_optimizer, source)}: converted")


if __name__ == "__main__":
    main()
