"""Servers whose objects are read in place: their addresses, credentials and documents.

http://host/data/em.zarr       any server of files
s3://bucket/em.zarr            unsigned, unless the environment has AWS's keys or a profile
                               (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_WEB_IDENTITY_TOKEN_FILE);
                               AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL names another server than Amazon's,
                               AWS_REGION its region
gs://bucket/em.zarr            with the credentials that GOOGLE_APPLICATION_CREDENTIALS names, else unsigned

A request is tried six times, and at most eight run at once: see `store.context`.
"""

import hashlib
import json
import os
import re
from typing import Any
from urllib.parse import unquote, urlsplit

from emsuite.common.errors import BadInput
from emsuite.io.formats.tensors.store import read_keys

SCHEMES = ("http://", "https://", "s3://", "gs://")
_LARGEST_DOCUMENT = 2**24  # bytes
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")


def is_remote(place: str) -> bool:
    """Return whether a text is a URL of a server."""
    return place.startswith(SCHEMES)


def store_of(url: str) -> dict[str, Any]:
    """Return tensorstore's kvstore for a URL; raise BadInput for one that cannot be read."""
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment or not parts.netloc:
        raise BadInput(f"{url}: expected SCHEME://HOST-OR-BUCKET/PATH, without a user, a query or a fragment")
    path = f"{parts.path.strip('/')}/".removeprefix("/")
    if parts.scheme in ("http", "https"):
        return {"driver": "http", "base_url": f"{parts.scheme}://{parts.netloc}/", "path": path}
    if parts.scheme == "gs":
        return {"driver": "gcs", "bucket": parts.netloc, "path": unquote(path)}
    store: dict[str, Any] = {"driver": "s3", "bucket": parts.netloc, "path": unquote(path)}
    signed = any(os.environ.get(key) for key in _KEYS)
    store["aws_credentials"] = {"type": "default" if signed else "anonymous"}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        address = endpoint if re.match("https?://", endpoint) else f"http://{endpoint}"
        store |= {"endpoint": address.rstrip("/"), "aws_region": region}
    return store


def read_documents(url: str, names: tuple[str, ...]) -> list[bytes | None]:
    """Return the documents of a URL, None for those that are missing; raise BadInput if the server fails."""
    documents = read_keys(url, store_of(url), names)
    for name, document in zip(names, documents, strict=True):
        if document is not None and len(document) > _LARGEST_DOCUMENT:
            raise BadInput(f"{url}/{name}: {len(document):,} bytes, expected a document")
    return documents


def hash_of(document: Any) -> str:
    """Return the SHA-256 of a JSON document, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
