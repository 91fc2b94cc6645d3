import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.io.volume import create_volume, open_volume
from emsuite.segmentation.agglomerate import agglomerate_fragments
from emsuite.segmentation.extract_fragments import extract_fragments
from emsuite.segmentation.fragments import FragmentSettings
from emsuite.segmentation.graph_tables import read_edges
from emsuite.segmentation.merge_hierarchy import find_contacts

CONTEXT = (64, 64, 64)


@pytest.fixture
def fragments(cells, tmp_path):
    extract_fragments(
        cells.path / "affs", tmp_path, FragmentSettings(flood="distance"), block_size=(160, 160, 160), context=CONTEXT
    )
    return tmp_path / "fragments.zarr/fragments"


@pytest.mark.parametrize("context", [CONTEXT, (8, 8, 8)])
def test_every_touching_pair_is_an_edge_once(cells, fragments, tmp_path, context):
    number = agglomerate_fragments(cells.path / "affs", fragments, tmp_path / "edges", "mean", context=context)
    voxels = open_volume(fragments).read()
    ids, small = np.unique(voxels, return_inverse=True)
    u, v, contact = find_contacts(small.reshape(voxels.shape) + (ids[0] != 0))
    ids = np.append(0, ids) if ids[0] != 0 else ids
    edges = read_edges(tmp_path / "edges")
    order = np.lexsort((edges.v, edges.u))
    assert number == u.size
    np.testing.assert_array_equal(edges.u[order], ids[u])
    np.testing.assert_array_equal(edges.v[order], ids[v])
    np.testing.assert_array_equal(edges.contact[order], contact)


def test_cells_stay_apart_and_whole(cells, fragments, tmp_path):
    agglomerate_fragments(cells.path / "affs", fragments, tmp_path / "edges", "hist_quant_90")
    voxels, edges = open_volume(fragments).read(), read_edges(tmp_path / "edges")
    inside = cells.labels != 0
    ids, cell = np.unique(np.stack([voxels[inside], cells.labels[inside]]), axis=1)
    same = cell[np.searchsorted(ids, edges.u)] == cell[np.searchsorted(ids, edges.v)]
    assert (edges.score[same] < 0.1).mean() > 0.9
    assert edges.score[~same].min() > 0.5


def test_arrays_that_do_not_fit_are_refused(cells, fragments, tmp_path):
    affs = create_volume(tmp_path / "p.zarr/affs", (3, 40, 48, 55), np.uint8, (8, 8, 8), (80, 160, 240))
    with pytest.raises(BadInput, match=r"fragments.zarr/fragments: covers .* expected what .*p.zarr/affs covers"):
        agglomerate_fragments(affs.path, fragments, tmp_path / "edges", "mean")
    with pytest.raises(BadInput, match=r"labels: has no cells.zarr.manifest.json that tells its blocks"):
        agglomerate_fragments(cells.path / "affs", cells.path / "labels", tmp_path / "edges", "mean")
    with pytest.raises(BadInput, match="'median': expected one of mean, hist_quant_10"):
        agglomerate_fragments(cells.path / "affs", fragments, tmp_path / "edges", "median")
    with pytest.raises(BadInput, match="expected at least a voxel"):
        agglomerate_fragments(cells.path / "affs", fragments, tmp_path / "edges", "mean", context=(8, 0, 8))
    assert not (tmp_path / "edges").exists()
