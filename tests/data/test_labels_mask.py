import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from emsuite.common.errors import BadInput
from emsuite.data import labels_mask as masks
from emsuite.data.labels_mask import MaskRule, create_mask, mask_of, masks_path
from emsuite.io.volume import LABELS, MASK, create_volume, fingerprint, open_volume

ONES = MaskRule()
HEMI = MaskRule(unlabelled=(2**64 - 3,))


def volume(folder: Path, labels: np.ndarray, zarr_format: int = 2, chunks: tuple[int, ...] = (4, 4, 4)) -> Path:
    container = folder / "v.zarr"
    made = create_volume(
        container / LABELS, labels.shape, labels.dtype, (20, 9, 9), (40, 18, 0), chunks, zarr_format=zarr_format
    )
    made.array[:] = labels
    return container


def some_labels(dtype: type = np.uint64) -> np.ndarray:
    labels = np.random.default_rng(0).integers(0, 5, (10, 9, 7)).astype(dtype)
    labels[labels == 4] = np.array(-3).astype(dtype)
    return labels


def read(container: Path) -> np.ndarray:
    return np.asarray(open_volume(container / MASK).array[:])


def test_ones() -> None:
    mask = mask_of(np.arange(8, dtype=np.uint64).reshape(2, 2, 2), ONES)
    assert mask.dtype == np.uint8
    assert mask.tolist() == np.ones((2, 2, 2)).tolist()


@pytest.mark.parametrize("dtype", [np.uint64, np.int64])
def test_unlabelled_voxels_are_zero(dtype: type) -> None:
    labels = np.array([0, 1, 2**63 - 1, -3]).astype(dtype)
    assert mask_of(labels, HEMI).tolist() == [1, 1, 1, 0]


def test_several_unlabelled() -> None:
    labels = np.array([0, 1, 2, 3], np.uint32)
    assert mask_of(labels, MaskRule(unlabelled=(0, 2))).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_mask_lies_where_the_labels_lie(tmp_path: Path, zarr_format: int) -> None:
    labels = some_labels()
    container = volume(tmp_path, labels, zarr_format)
    assert create_mask(container, HEMI) is True
    mask, source = open_volume(container / MASK), open_volume(container / LABELS)
    assert mask.dtype == np.uint8
    assert mask.roi == source.roi
    assert mask.voxel_size == source.voxel_size
    assert mask.array.metadata.zarr_format == zarr_format
    assert np.array_equal(read(container), labels != np.uint64(2**64 - 3))
    assert {path.name for path in (container / "volumes/labels").iterdir() if path.is_dir()} == {
        "neuron_ids",
        "labels_mask",
    }


def test_record_says_what_it_was_made_from(tmp_path: Path) -> None:
    container = volume(tmp_path, some_labels())
    create_mask(container, HEMI)
    record = json.loads(masks_path(container).read_text())
    assert masks_path(container).name == "v.zarr.masks.json"
    assert record["settings"]["mask_rule"] == {"unlabelled": [2**64 - 3]}
    assert record["inputs"]["labels"]["checksum"].startswith("listing:")


def test_second_run_leaves_all_as_it_is(tmp_path: Path) -> None:
    container = volume(tmp_path, some_labels())
    create_mask(container, HEMI)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert create_mask(container, HEMI) is False
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_record_is_written_again_where_it_is_missing(tmp_path: Path) -> None:
    container = volume(tmp_path, some_labels())
    create_mask(container, HEMI)
    masks_path(container).unlink()
    assert create_mask(container, HEMI) is False
    assert masks_path(container).exists()


def test_another_rule_makes_another_mask(tmp_path: Path) -> None:
    container = volume(tmp_path, some_labels())
    create_mask(container, ONES)
    assert read(container).all()
    assert create_mask(container, HEMI) is True
    assert not read(container).all()


def test_other_labels_make_another_mask(tmp_path: Path) -> None:
    create_mask(volume(tmp_path, some_labels()), HEMI)
    container = volume(tmp_path, np.ones((12, 9, 7), np.uint64))
    assert create_mask(container, HEMI) is True
    assert read(container).shape == (12, 9, 7)


def test_labels_edited_in_files_of_the_same_size_make_another_mask(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "v.zarr", mode="w", zarr_format=2)
    array = group.create_array(LABELS, shape=(8, 8, 8), dtype="u8", chunks=(8, 8, 8), compressors=None)
    array.attrs.update(resolution=[8, 8, 8])
    array[...] = 1
    assert create_mask(tmp_path / "v.zarr", MaskRule(unlabelled=(7,))) is True
    array[:2] = 7
    assert create_mask(tmp_path / "v.zarr", MaskRule(unlabelled=(7,))) is True
    assert read(tmp_path / "v.zarr").sum() == 6 * 64


@pytest.mark.parametrize("change", ["labels", "rule"])
def test_an_edited_mask_is_kept_whatever_changes(tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture) -> None:
    container = volume(tmp_path, some_labels())
    create_mask(container, HEMI)
    open_volume(container / MASK, "r+").array[:4] = 0
    painted = read(container)
    if change == "labels":
        open_volume(container / LABELS, "r+").array[0, 0, 0] = 7
    masks_path(container).unlink()  # as the workflow does before it runs the step again
    assert create_mask(container, ONES if change == "rule" else HEMI) is False
    assert np.array_equal(read(container), painted)
    assert "labels_mask: was edited since it was written, and is kept" in caplog.text


def test_a_mask_of_an_earlier_version_is_kept(tmp_path: Path) -> None:
    container = volume(tmp_path, some_labels())
    create_mask(container, HEMI)
    mask = open_volume(container / MASK, "r+").array
    mask.attrs["labels_checksum"] = fingerprint(container / LABELS)
    assert create_mask(container, HEMI) is False
    mask.attrs["labels_checksum"] = "listing:of others"
    assert create_mask(container, HEMI) is True


def test_a_run_that_broke_off_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = some_labels()
    container = volume(tmp_path, labels)
    blocks = iter(range(5))

    def breaks(block: np.ndarray, rule: MaskRule) -> np.ndarray:
        if next(blocks, None) is None:
            raise KeyboardInterrupt
        return mask_of(block, rule)

    with monkeypatch.context() as patch:
        patch.setattr(masks, "mask_of", breaks)
        with pytest.raises(KeyboardInterrupt):
            create_mask(container, HEMI)
    assert not (container / MASK).exists()
    assert not masks_path(container).exists()
    (container / "volumes/labels/labels_mask_unfinished/9.9.9").write_bytes(b"stray")
    assert create_mask(container, HEMI) is True
    assert not (container / MASK / "9.9.9").exists()
    assert np.array_equal(read(container), labels != np.uint64(2**64 - 3))


def test_goes_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container = volume(tmp_path, some_labels())
    sizes = []
    monkeypatch.setattr(masks, "mask_of", lambda block, rule: sizes.append(block.size) or mask_of(block, rule))
    create_mask(container, ONES)
    assert len(sizes) == 3 * 3 * 2
    assert max(sizes) == 64
    assert read(container).all()


def test_somebody_elses_mask_is_kept(tmp_path: Path) -> None:
    container = volume(tmp_path, some_labels())
    drawn = create_volume(container / MASK, (10, 9, 7), np.uint8, (20, 9, 9), (40, 18, 0))
    drawn.array[:5] = 1
    assert create_mask(container, HEMI) is False
    assert read(container).sum() == 5 * 9 * 7
    assert masks_path(container).exists()


def test_somebody_elses_mask_that_does_not_fit(tmp_path: Path) -> None:
    container = volume(tmp_path, some_labels())
    create_volume(container / MASK, (10, 9, 6), np.uint8, (20, 9, 9), (40, 18, 0))
    with pytest.raises(BadInput, match=r"labels_mask: uint8 over .* does not fit the labels"):
        create_mask(container, HEMI)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_listing_of_all_arrays_is_brought_up_to_date(tmp_path: Path, zarr_format: int) -> None:
    container = volume(tmp_path, some_labels(), zarr_format)
    zarr.consolidate_metadata(container)
    create_mask(container, ONES)
    assert read(container).all()
    listed = zarr.open_group(container, mode="r", use_consolidated=True)
    assert "labels_mask" in set(listed["volumes/labels"].array_keys())
    assert "labels_mask_unfinished" not in set(listed["volumes/labels"].array_keys())


def test_labels_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such volume"):
        create_mask(tmp_path / "missing.zarr", ONES)
    with pytest.raises(BadInput, match="expected a zarr volume"):
        create_mask(tmp_path / "v.hdf", ONES)
    raw_only = tmp_path / "raw.zarr"
    create_volume(raw_only / "volumes/raw", (4, 4, 4), np.uint8, (8, 8, 8), (0, 0, 0))
    with pytest.raises(BadInput, match="has no array 'volumes/labels/neuron_ids'; it holds volumes/raw"):
        create_mask(raw_only, ONES)
    with pytest.raises(BadInput, match=r"neuron_ids: float32 .* expected integer labels"):
        create_mask(volume(tmp_path, some_labels().astype(np.float32)), ONES)


def test_unfinished_volumes_are_refused(tmp_path: Path) -> None:
    container = volume(tmp_path, some_labels())
    (tmp_path / "v.zarr.unfinished.json").write_text("{}")
    with pytest.raises(BadInput, match="unfinished"):
        create_mask(container, ONES)


def test_read_only_volumes_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    container = volume(tmp_path, some_labels())
    monkeypatch.setattr(masks, "create_volume", refuse)
    with pytest.raises(BadInput, match="take a copy of it"):
        create_mask(container, ONES)
