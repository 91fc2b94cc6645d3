"""Arrays on servers, read in place: zarr 2 and 3, N5 and precomputed at `http(s)://`, `s3://` and `gs://`.

s3://bucket/fib25.zarr/volumes/raw            the array is what its documents say: zarr.json, .zarray, attributes.json
https://host/data/em.n5/em/fibsem/s2
precomputed://gs://bucket/em/8_8_8            see `precomputed`

Servers list no folders: names of arrays are those that consolidated metadata, multiscales and scales tell.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.io.formats.base import Mode, StoredArray
from emsuite.io.formats.tensors import n5, precomputed
from emsuite.io.formats.tensors.servers import hash_of, read_documents, store_of
from emsuite.io.formats.tensors.store import TensorArray

_DOCUMENTS = ("zarr.json", ".zarray", ".zattrs", ".zmetadata", "attributes.json", "info")
_OF_GROUPS = ("zarr.json", ".zattrs", "attributes.json")
_GROUPS = 4  # groups above an array whose attributes are asked for


def open_array(container: str, name: str, mode: Mode) -> StoredArray:
    """See `Format.open_array`."""
    url = _joined(container, name)
    if mode != "r":
        raise BadInput(f"{url}: is on a server, which is read only; expected a local volume to write into")
    found = _documents(url)
    for document, describe in (("zarr.json", _zarr3), (".zarray", _zarr2), ("attributes.json", _n5)):
        if document in found and (stored := describe(url, found)) is not None:
            return stored
    if "info" in found or ".precomputed/" in url:
        return precomputed.open_array(url, "", mode)
    names = _names(found)
    holds = f"it holds {', '.join(names[:8])}" if names else "expected zarr, N5 or precomputed"
    raise BadInput(f"{url}: no array of that name; {holds}")


def array_names(container: str) -> list[str]:
    """See `Format.array_names`: what consolidated metadata or multiscales list; servers list no folders."""
    if ".precomputed/" in container:
        return precomputed.array_names(container)
    found = _documents(container)
    if not found:
        raise BadInput(f"{container}: no volume there; expected zarr, N5 or precomputed")
    return sorted(_names(found)) or [""]


def holds_array(container: str, name: str) -> bool:
    """See `Format.holds_array`."""
    return bool(_documents(_joined(container, name)))


def fingerprint(container: str, name: str) -> str:
    """See `Format.fingerprint`: of the documents alone, since servers do not tell when a voxel changes."""
    return f"documents:{hash_of(_documents(_joined(container, name)))}"


def _joined(container: str, name: str) -> str:
    return "/".join(filter(None, (container.rstrip("/"), name)))


def _documents(url: str) -> dict[str, dict[str, Any]]:
    """Return the documents of a URL that are JSON objects; a server may answer with a page for what it lacks."""
    documents = dict(zip(_DOCUMENTS, read_documents(url, _DOCUMENTS), strict=True))
    return {name: found for name, text in documents.items() if (found := _object(text)) is not None}


def _object(text: bytes | None) -> dict[str, Any] | None:
    try:
        content = json.loads(text or b"")
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _groups_above(url: str) -> list[tuple[str, dict[str, dict[str, Any]]]]:
    """Return the name of the array below each group above it, and the documents of the group."""
    scheme, _, rest = url.partition("://")
    parts, groups = rest.split("/"), []
    for depth in range(1, min(_GROUPS, len(parts) - 1) + 1):
        group = f"{scheme}://" + "/".join(parts[:-depth])
        texts = dict(zip(_OF_GROUPS, read_documents(group, _OF_GROUPS), strict=True))
        documents = {name: found for name, text in texts.items() if (found := _object(text)) is not None}
        groups.append(("/".join(parts[-depth:]), documents))
        if Path(parts[-depth - 1]).suffix in (".zarr", ".n5"):
            break
    return groups


def _zarr3(url: str, found: dict[str, dict[str, Any]]) -> StoredArray | None:
    document = found["zarr.json"]
    if document.get("node_type") != "array":
        return None
    try:
        blocks = document["chunk_grid"]["configuration"]["chunk_shape"]
        inner = [c["configuration"]["chunk_shape"] for c in document["codecs"] if c["name"] == "sharding_indexed"]
        array = _tensors(url, "zarr3", document["shape"], document["data_type"], inner[0] if inner else blocks)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadInput(f"{url}/zarr.json: describes no array: {error!r}") from None
    names = tuple(name if isinstance(name, str) else None for name in document.get("dimension_names") or ())
    groups = [(name, group.get("zarr.json", {}).get("attributes", {})) for name, group in _groups_above(url)]
    return StoredArray(array, document.get("attributes", {}), names, tuple(groups))


def _zarr2(url: str, found: dict[str, dict[str, Any]]) -> StoredArray:
    document = found[".zarray"]
    try:
        array = _tensors(url, "zarr", document["shape"], document["dtype"], document["chunks"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{url}/.zarray: describes no array: {error!r}") from None
    groups = tuple((name, group.get(".zattrs", {})) for name, group in _groups_above(url))
    return StoredArray(array, found.get(".zattrs", {}), (), groups)


def _n5(url: str, found: dict[str, dict[str, Any]]) -> StoredArray | None:
    document = found["attributes.json"]
    if not n5.is_dataset(document):
        return None
    groups = [group.get("attributes.json", {}) for _, group in _groups_above(url)]
    return n5.describe(url, store_of(url), document, groups)


def _tensors(url: str, driver: str, shape: Any, dtype: Any, chunks: Any) -> TensorArray:
    spec = json.dumps({"driver": driver, "kvstore": store_of(url)})
    return TensorArray(url, spec, _lengths(shape), np.dtype(dtype), _lengths(chunks), reverse=False)


def _lengths(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(isinstance(n, int) for n in values):
        raise ValueError(f"{values!r}, expected a list of integers")
    return tuple(values)


def _names(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return the names of arrays that documents of a group list."""
    consolidated = found.get(".zmetadata", {}).get("metadata", {})
    names = [key.removesuffix("/.zarray") for key in consolidated if key.endswith("/.zarray")]
    listed = (found.get("zarr.json", {}).get("consolidated_metadata") or {}).get("metadata", {})
    names += [key for key, node in listed.items() if isinstance(node, dict) and node.get("node_type") == "array"]
    attributes = found.get("zarr.json", {}).get("attributes", {}) | found.get(".zattrs", {})
    images = (attributes.get("ome") or attributes).get("multiscales", [])
    names += [str(item["path"]) for image in images for item in image.get("datasets", [])]
    return names or [str(scale.get("key")) for scale in found.get("info", {}).get("scales", [])]
