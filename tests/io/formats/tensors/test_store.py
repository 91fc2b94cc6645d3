"""tensorstore's part in all formats: indices, errors in one line, and processes that cannot use it."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts

from emsuite.common.errors import BadInput
from emsuite.io.formats.tensors import store
from emsuite.io.volume import create_volume, open_volume

VOXELS = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(4, 6, 5)


@pytest.mark.parametrize(
    "index",
    [..., 0, -1, slice(1, 3), (slice(None), 2), (..., 3), (1, ..., 2), (slice(None, None, -1), slice(4, 1, -2)),
     (0, 1, 2), slice(9, 12), (np.int64(2), slice(0, -1)), ()], ids=str,
)  # fmt: skip
def test_indices_are_numpys(index: Any) -> None:
    region, rest = store.plain_region(index, VOXELS.shape)
    np.testing.assert_array_equal(VOXELS[region][rest], VOXELS[index])


@pytest.mark.parametrize("index", [4, -5, (0, 0, 0, 0), (..., ...), "a", 1.5, [0, 1], True, None], ids=str)
def test_other_indices(index: Any) -> None:
    with pytest.raises(IndexError):
        store.plain_region(index, VOXELS.shape)


def test_errors_are_told_without_tensorstores_details() -> None:
    text = 'FAILED_PRECONDITION: Error reading local file "/a/0": Invalid; at byte 3 [tensorstore_spec=\'{"b": 1}\']'
    assert str(store._told("/a", text)) == "/a/0: the chunk is damaged: Invalid"
    assert (
        str(store._told("s3://a", "ABORTED: Slow [http_response_body='x']")) == "s3://a: cannot be read: ABORTED: Slow"
    )
    full = store._told("/a", "Failed to write [OS error 28: ENOSPC No space left on device]")
    assert isinstance(full, OSError)
    assert full.errno == 28


def test_a_forked_process_asks_a_fresh_one(tmp_path: Path) -> None:
    volume = create_volume(tmp_path / "c.n5/raw", VOXELS.shape, np.uint8, (8, 8, 8), (0, 0, 0))
    volume.write(volume.roi, VOXELS)
    child = os.fork()
    if child == 0:
        good = not store.is_usable() and np.array_equal(open_volume(tmp_path / "c.n5/raw").read(), VOXELS)
        volume.write(volume.roi, VOXELS + 1)
        (tmp_path / "c.n5/raw/0/0/0").write_bytes(b"short")
        try:
            volume.read()
        except BadInput as error:
            good = good and "is damaged" in str(error)
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_bounded() -> None:
    limits = store.context()
    assert isinstance(limits, ts.Context)
    assert limits["cache_pool"].to_json() == {} or limits["cache_pool"].to_json()["total_bytes_limit"] == 0
    assert limits["data_copy_concurrency"].to_json()["limit"] <= 16
    assert limits["http_request_retries"].to_json()["max_retries"] == 5
