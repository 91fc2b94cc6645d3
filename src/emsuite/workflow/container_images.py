"""Images fetched from S3: known ones by name (containers/images.yaml), any other by `s3://BUCKET/KEY`."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from emsuite.common.container_image import digest, file_name, record, recorded
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.files import remove, sha256
from emsuite.common.settings import Settings, load
from emsuite.download.fetch import WORKERS, fetch_objects
from emsuite.download.object_store import S3Store, StoredObject


class KnownImage(Settings):
    """Where an image lies in S3 (None: not said yet), and its sha256 where that is known."""

    url: str | None = None
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")


class _KnownImages(Settings):
    images: dict[str, KnownImage]


@dataclass(frozen=True)
class Source:
    """An image in a bucket, and the sha256 it must have where that is known."""

    bucket: str
    key: str
    sha256: str | None

    @property
    def name(self) -> str:
        """The file's that it becomes."""
        return file_name(self.key)


def find_image(name: str, known: Path, sha256: str | None = None) -> Source:
    """The image of that name in the file `known`, or the one at `s3://BUCKET/KEY`.

    Its sha256 is the one given, else the one in `known`, if any. Raises BadInput for a name that says nothing.
    """
    images = load(_KnownImages, known).images
    if name.startswith("s3://"):
        image = next((image for image in images.values() if image.url == name), KnownImage(url=name))
    elif name in images:
        image = images[name]
    else:
        raise BadInput(f"{name}: no such image; expected s3://BUCKET/KEY or one of {', '.join(sorted(images))}")
    if image.url is None:
        raise BadInput(f"{known}: {name}: url is not set; say where the image lies, or build it with containers/build")
    return Source(*split_url(image.url), sha256 or image.sha256)


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of `s3://BUCKET/KEY`; raises BadInput for anything else."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket or not key or key.endswith("/"):
        raise BadInput(f"'{url}' names no object; expected s3://BUCKET/KEY")
    return bucket, key


def fetch_image(source: Source, target: Path, endpoint_url: str | None = None, workers: int = WORKERS) -> str:
    """Make `target` a verified copy of an image, and record its digest beside it; returns how it was verified.

    What an interrupted run fetched lies in a folder beside the target and is continued; `target` itself is there whole
    or not at all, and is kept if it is the same already. Without a known sha256 the store's own checksum has to do.
    Raises RunFailed for an image that is not what was expected.
    """
    store = S3Store(source.bucket, endpoint_url, workers)
    stored = replace(store.describe(source.key), name=target.name)
    if target.exists() and _is_same(target, stored, source.sha256):
        return "already there"
    parts = target.with_name(f".{target.name}.fetching")
    by_size = fetch_objects(store, [stored], parts, what=target.name, workers=workers)
    found = sha256(parts / target.name)
    if source.sha256 not in (None, found):
        remove(parts)
        url = store.url(source.key)
        raise RunFailed(f"{url}: is not the image that was recorded: sha256 {found}, expected {source.sha256}")
    os.replace(parts / target.name, target)
    remove(parts)
    record(target, found, source=store.url(source.key), etag=stored.etag)
    if source.sha256:
        return "verified by its sha256"
    return "verified by its size only" if by_size else "verified by its ETag (no sha256 is recorded for it)"


def _is_same(target: Path, stored: StoredObject, expected: str | None) -> bool:
    """Whether what is there is what would be fetched; without a sha256, the record of an earlier fetch tells."""
    if target.stat().st_size != stored.size:
        return False
    try:
        found = digest(target)
    except BadInput:
        return False
    return found == expected if expected is not None else recorded(target).get("etag") == stored.etag
