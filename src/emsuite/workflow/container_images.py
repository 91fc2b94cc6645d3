"""Container images from S3: by name if a yaml file lists them (containers/images.yaml), else by `s3://BUCKET/KEY`."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from emsuite.common.container_image import digest, file_name, record, recorded
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.files import remove, sha256
from emsuite.common.outputs import lock_path
from emsuite.common.settings import Settings, load
from emsuite.common.state.lock import owned
from emsuite.download.endpoint import Endpoint
from emsuite.download.fetch import WORKERS, fetch_objects
from emsuite.download.object_store import S3Store, StoredObject


class KnownImage(Settings):
    """The url of an image in S3 (None if it has not been published yet), and its sha256 if it is known."""

    url: str | None = None
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")


class _KnownImages(Settings):
    images: dict[str, KnownImage]


@dataclass(frozen=True)
class Source:
    """An image in a bucket, and the sha256 that it must have, if it is known."""

    bucket: str
    key: str
    sha256: str | None

    @property
    def name(self) -> str:
        """The name of the local file."""
        return file_name(self.key)


def find_image(name: str, listing: Path, sha256: str | None = None) -> Source:
    """Return the source of an image.

    Args:
        name: a name that the yaml file `listing` holds, or `s3://BUCKET/KEY`.
        listing: a yaml file of images, with url and sha256 of each.
        sha256: replaces the one in `listing`.

    Raises:
        BadInput: the name is unknown, or has no url in `listing`.
    """
    images = load(_KnownImages, listing).images
    if name.startswith("s3://"):
        image = next((image for image in images.values() if image.url == name), KnownImage(url=name))
    elif name in images:
        image = images[name]
    else:
        raise BadInput(f"{name}: no such image; expected s3://BUCKET/KEY or one of {', '.join(sorted(images))}")
    if image.url is None:
        raise BadInput(
            f"{listing}: {name}: url is not set; name the url of the image, or build it with containers/build"
        )
    return Source(*split_url(image.url), sha256 or image.sha256)


def split_url(url: str) -> tuple[str, str]:
    """Return bucket and key of `s3://BUCKET/KEY`; raise BadInput for anything else."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket or not key or key.endswith("/"):
        raise BadInput(f"'{url}' names no object; expected s3://BUCKET/KEY")
    return bucket, key


def fetch_image(source: Source, target: Path, endpoint: Endpoint | str | None = None, workers: int = WORKERS) -> str:
    """Fetch an image, verify it, and record its digest beside it; return how it was verified.

    An interrupted run leaves its parts in a folder beside the target, where the next run continues; the target itself
    is complete or absent. A target that is this image already is kept. Without a sha256 the checksum of the store is
    compared.

    Args:
        source: the image.
        target: the local file.
        endpoint: another S3 endpoint than that of AWS.
        workers: connections at once.

    Raises:
        RunFailed: the image has another sha256 than its record.
    """
    with owned(lock_path(target), target):
        return _fetch_image(source, target, endpoint, workers)


def _fetch_image(source: Source, target: Path, endpoint: Endpoint | str | None, workers: int) -> str:
    store = S3Store(source.bucket, endpoint, workers)
    stored = replace(store.describe(source.key), name=target.name)
    if target.exists() and _is_same(target, stored, source.sha256):
        return "already there"
    parts = target.with_name(f".{target.name}.fetching")
    by_size = fetch_objects(store, [stored], parts, what=target.name, workers=workers)
    digest_of_file = sha256(parts / target.name)
    if source.sha256 not in (None, digest_of_file):
        remove(parts)
        url = store.url(source.key)
        raise RunFailed(f"{url}: is not the image that was recorded: sha256 {digest_of_file}, expected {source.sha256}")
    os.replace(parts / target.name, target)
    remove(parts)
    record(target, digest_of_file, source=store.url(source.key), etag=stored.etag)
    if source.sha256:
        return "verified by its sha256"
    return "verified by its size only" if by_size else "verified by its ETag (no sha256 is recorded for it)"


def _is_same(target: Path, stored: StoredObject, expected: str | None) -> bool:
    """Return whether `target` is the stored image, by its sha256, or by the ETag that an earlier fetch recorded."""
    if target.stat().st_size != stored.size:
        return False
    try:
        digest_of_target = digest(target)
    except BadInput:
        return False
    if expected is not None:
        return digest_of_target == expected
    return recorded(target).get("etag") == stored.etag
