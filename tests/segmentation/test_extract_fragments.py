import json
import shutil

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path, read_manifest, unfinished_path
from emsuite.io.volume import create_volume, open_volume
from emsuite.segmentation.extract_fragments import extract_fragments
from emsuite.segmentation.fragments import FragmentSettings, find_fragments, split_into_components
from emsuite.segmentation.graph_tables import read_nodes

DISTANCE = FragmentSettings(flood="distance")
BLOCKS = {"block_size": (160, 160, 160), "context": (64, 64, 64)}


def test_one_block_is_the_whole_volume_at_once(cells, tmp_path):
    number = extract_fragments(cells.path / "affs", tmp_path / "out", DISTANCE)
    fragments = open_volume(tmp_path / "out/fragments.zarr/fragments")
    assert fragments.dtype == np.uint64
    assert fragments.roi == open_volume(cells.path / "affs").roi
    np.testing.assert_array_equal(fragments.read(), find_fragments(cells.affs, DISTANCE))
    assert number == fragments.read().max()


@pytest.mark.parametrize("blocks", [{}, BLOCKS])
def test_nodes_tell_where_each_fragment_is(cells, tmp_path, blocks):
    number = extract_fragments(cells.path / "affs", tmp_path, DISTANCE, **blocks)
    voxels = open_volume(tmp_path / "fragments.zarr/fragments").read()
    nodes = read_nodes(tmp_path / "graph/nodes")
    ids, sizes = np.unique(voxels[voxels != 0], return_counts=True)
    assert number == ids.size
    np.testing.assert_array_equal(nodes.id, ids)
    np.testing.assert_array_equal(nodes.size, sizes)
    for i in range(0, number, 7):
        centre = (np.argwhere(voxels == ids[i]).mean(0) + 0.5) * 8 + (80, 160, 240)
        assert (nodes.z[i], nodes.y[i], nodes.x[i]) == pytest.approx(tuple(centre))


def test_ids_tell_the_block(cells, tmp_path):
    extract_fragments(cells.path / "affs", tmp_path, DISTANCE, **BLOCKS)
    voxels = open_volume(tmp_path / "fragments.zarr/fragments").read()
    found = voxels != 0
    assert found[cells.labels != 0].all()
    block = np.ravel_multi_index(tuple(np.indices(voxels.shape) // 20), (2, 3, 3))
    np.testing.assert_array_equal((voxels[found] - 1) // 20**3, block[found])


@pytest.mark.parametrize("more", [{}, {"epsilon": 0.3}, {"flood": "affinity"}])
def test_no_fragment_of_a_block_reaches_into_two_cells(cells, tmp_path, more):
    options = FragmentSettings(min_seed_distance=3, **{"flood": "distance"} | more)
    extract_fragments(cells.path / "affs", tmp_path, options, **BLOCKS)
    voxels = open_volume(tmp_path / "fragments.zarr/fragments").read()
    inside = (cells.labels != 0) & (voxels != 0)
    pairs = np.unique(np.stack([voxels[inside], cells.labels[inside]]), axis=1)
    assert np.unique(pairs[0]).size == pairs.shape[1]


def test_fragments_of_sections_stay_in_theirs(cells, tmp_path):
    extract_fragments(cells.path / "affs", tmp_path, FragmentSettings(in_sections=True, flood="distance"), **BLOCKS)
    voxels = open_volume(tmp_path / "fragments.zarr/fragments").read()
    of_sections = [np.setdiff1d(section, 0) for section in voxels]
    assert sum(map(len, of_sections)) == np.unique(np.concatenate(of_sections)).size > 40


@pytest.mark.parametrize("blocks", [{}, BLOCKS])
def test_bad_sections_are_those_that_take_their_place(cells, tmp_path, blocks):
    options = FragmentSettings(in_sections=True, flood="distance", replace_sections="13=12,30=31,20")
    extract_fragments(cells.path / "affs", tmp_path, options, **blocks)
    voxels = open_volume(tmp_path / "fragments.zarr/fragments").read()  # from section 10 of the world on
    parts = [split_into_components(section[None]) for section in voxels]
    np.testing.assert_array_equal(parts[3], parts[2])
    np.testing.assert_array_equal(parts[20], parts[21])
    assert not voxels[10].any()
    assert voxels[np.arange(len(voxels)) != 10].any(axis=(1, 2)).all()
    assert manifest_settings(tmp_path)["replace_sections"] == "13=12,20,30=31"
    extract_fragments(cells.path / "affs", tmp_path / "as_is", DISTANCE)
    assert "replace_sections" not in manifest_settings(tmp_path / "as_is")


def test_a_section_that_does_not_exist_takes_no_place(cells, tmp_path):
    options = FragmentSettings(replace_sections="13=999")
    with pytest.raises(BadInput, match="affs: replace_sections: 999 is to take the place of 13"):
        extract_fragments(cells.path / "affs", tmp_path, options)
    assert not (tmp_path / "fragments.zarr").exists()


def manifest_settings(out):
    return read_manifest(out / "fragments.zarr")["settings"]


def test_background_is_where_the_mask_is_0_or_does_not_reach(cells, tmp_path):
    mask = create_volume(tmp_path / "mask.zarr/mask", (40, 48, 40), np.uint8, (8, 8, 8), (80, 160, 240))
    mask.write(mask.roi, np.indices((40, 48, 40))[0] >= 5)
    extract_fragments(cells.path / "affs", tmp_path, DISTANCE, mask=tmp_path / "mask.zarr/mask", **BLOCKS)
    voxels = open_volume(tmp_path / "fragments.zarr/fragments").read()
    assert not voxels[:5].any()
    assert not voxels[..., 40:].any()
    assert voxels[5:, :, :40][cells.labels[5:, :, :40] != 0].all()


@pytest.mark.parametrize(
    ("value", "line"),
    [(0, "p.zarr/affs: yields no fragment; the aff"), (255, "p.zarr/affs: all affinities are 1, expect")],
)
@pytest.mark.parametrize("options", [DISTANCE, FragmentSettings(in_sections=True, flood="distance")])
def test_affinities_that_are_all_0_or_all_1_are_refused(tmp_path, value, line, options):
    affs = create_volume(tmp_path / "p.zarr/affs", (3, 20, 20, 40), np.uint8, (8, 8, 8), (0, 0, 0))
    affs.write(affs.roi, np.full(affs.shape, value, np.uint8))
    with pytest.raises(BadInput, match=line):
        extract_fragments(tmp_path / "p.zarr/affs", tmp_path, options, **BLOCKS)
    assert not manifest_path(tmp_path / "fragments.zarr").exists()
    assert not manifest_path(tmp_path / "graph/nodes").exists()


def test_one_fragment_without_a_boundary_is_fine_where_affinities_are_not_1(tmp_path):
    affs = create_volume(tmp_path / "p.zarr/affs", (3, 20, 20, 40), np.uint8, (8, 8, 8), (0, 0, 0))
    affs.write(affs.roi, np.full(affs.shape, 250, np.uint8))
    assert extract_fragments(tmp_path / "p.zarr/affs", tmp_path, DISTANCE, **BLOCKS) == 2


def test_nan_ends_the_run_and_nothing_looks_whole(tmp_path):
    affs = create_volume(tmp_path / "p.zarr/affs", (3, 20, 20, 60), np.float32, (8, 8, 8), (0, 0, 0))
    array = np.ones(affs.shape, np.float32)
    array[0, 10, 10, 50] = np.nan
    affs.write(affs.roi, array)
    with pytest.raises(BadInput, match=r"p.zarr/affs: holds nan to nan \(or NaN\).*expected affinities"):
        extract_fragments(tmp_path / "p.zarr/affs", tmp_path, DISTANCE, **BLOCKS)
    assert unfinished_path(tmp_path / "fragments.zarr").exists()
    assert not manifest_path(tmp_path / "fragments.zarr").exists()
    assert not manifest_path(tmp_path / "graph/nodes").exists()
    with pytest.raises(BadInput, match="unfinished"):
        open_volume(tmp_path / "fragments.zarr/fragments")


@pytest.mark.parametrize(
    ("voxel_size", "offset", "line"), [((8, 8, 4), (80, 160, 240), "voxel size"), ((8, 8, 8), (0, 0, 0), "none of the")]
)
def test_a_mask_that_does_not_fit_is_refused(cells, tmp_path, voxel_size, offset, line):
    create_volume(tmp_path / "mask.zarr/mask", (8, 8, 8), np.uint8, voxel_size, offset)
    with pytest.raises(BadInput, match=line):
        extract_fragments(cells.path / "affs", tmp_path, DISTANCE, mask=tmp_path / "mask.zarr/mask")
    assert not (tmp_path / "fragments.zarr").exists()


def test_affinities_written_again_are_others_to_a_stopped_run_and_no_path_is_public(cells, tmp_path):
    (affs := tmp_path / "a.zarr").mkdir()
    shutil.copytree(cells.path / "affs", affs / "affs")
    files = []
    for _ in range(2):
        extract_fragments(affs / "affs", tmp_path, DISTANCE)
        record = json.loads(manifest_path(tmp_path / "fragments.zarr").read_text())
        assert str(tmp_path) in str(record.pop("private"))
        assert str(tmp_path) not in str(record)
        files.append(record["settings"]["files"])
        for chunk in sorted(path for path in (affs / "affs").rglob("*") if path.is_file()):
            chunk.write_bytes(chunk.read_bytes())  # of the same size
    assert files[0] != files[1]
