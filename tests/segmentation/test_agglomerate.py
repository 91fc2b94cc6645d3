import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from builders import write_array
from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path, read_manifest
from emsuite.evaluation.scores import variation_of_information
from emsuite.io.relabel import relabel
from emsuite.io.volume import create_volume, open_volume
from emsuite.segmentation.agglomerate import agglomerate_fragments
from emsuite.segmentation.extract_fragments import extract_fragments
from emsuite.segmentation.find_segments import components
from emsuite.segmentation.fragments import FragmentSettings
from emsuite.segmentation.graph_tables import read_edges, read_nodes
from emsuite.segmentation.merge_hierarchy import find_contacts

CONTEXT = (64, 64, 64)
BLOCKS = {"block_size": (160, 160, 160), "context": CONTEXT}


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


SECTIONS = FragmentSettings(in_sections=True, min_seed_distance=3)


def segmented(affs, out, options, threshold=0.3, **more):
    """The segmentation at one threshold."""
    extract_fragments(affs, out, options, **BLOCKS)
    fragments = out / "fragments.zarr/fragments"
    agglomerate_fragments(affs, fragments, out / "edges", "hist_quant_75", context=CONTEXT, **more)
    voxels, ids = open_volume(fragments).read(), read_nodes(out / "graph/nodes").id
    ((_, segments),) = components(ids, read_edges(out / "edges"), [threshold])
    return relabel(voxels, ids, segments)


def test_segments_stay_in_their_sections(cells, tmp_path):
    segments = segmented(cells.path / "affs", tmp_path / "2d", SECTIONS, in_sections=True, workers=2)
    of_sections = [np.setdiff1d(section, 0) for section in segments]
    assert sum(map(len, of_sections)) == np.unique(np.concatenate(of_sections)).size
    segmented(cells.path / "affs", tmp_path / "3d", SECTIONS)
    inside = cells.labels != 0
    together = np.unique(np.stack([segments[inside], cells.labels[inside]]), axis=1)
    cells_in_sections = sum(np.setdiff1d(section, 0).size for section in cells.labels)
    assert 0.9 * together.shape[1] < np.unique(together[0]).size < 1.2 * cells_in_sections  # few hold two cells
    edges = read_edges(tmp_path / "2d/edges")
    z_of = dict(
        zip(*(getattr(read_nodes(tmp_path / "2d/graph/nodes"), key).tolist() for key in ("id", "z")), strict=True)
    )
    assert all(z_of[u] == z_of[v] for u, v in zip(edges.u.tolist(), edges.v.tolist(), strict=True))
    assert read_manifest(tmp_path / "2d/edges")["settings"]["segments_in_sections"] is True
    assert "segments_in_sections" not in read_manifest(tmp_path / "3d/edges")["settings"]


@pytest.mark.parametrize("options", [{"flood": "distance"}, {"in_sections": True, "epsilon": 0.2}])
def test_fragments_across_sections_cannot_stay_in_them(cells, tmp_path, options):
    extract_fragments(cells.path / "affs", tmp_path, FragmentSettings(**options))
    with pytest.raises(
        BadInput, match="segments_in_sections: expected fragments of one section each: in_sections true"
    ):
        agglomerate_fragments(
            cells.path / "affs", tmp_path / "fragments.zarr/fragments", tmp_path / "e", "mean", in_sections=True
        )


def test_a_section_without_affinities_is_bridged_by_another(cells, tmp_path):
    """Where a section is black, the network still tells what continues behind it: it was trained with such sections."""
    bad = 17
    affs = cells.affs.copy()
    affs[:, bad] = 9
    volume = write_array(tmp_path / "bad.zarr/affs", affs, offset=(80, 160, 240))
    name = str(80 // 8 + bad)  # of the world
    good = segmented(cells.path / "affs", tmp_path / "good", SECTIONS)
    scores = {}
    for setting in (None, f"{name}={int(name) - 1}", f"{name}={int(name) + 1}", name):
        options = SECTIONS.model_copy(update={"replace_sections": setting})
        found = segmented(volume.path, tmp_path / f"out_{setting}", options)
        scores[setting] = variation_of_information(np.delete(found, bad, 0), np.delete(good, bad, 0)).sum
        manifest = read_manifest(tmp_path / f"out_{setting}/edges")["settings"]
        assert manifest.get("replace_sections") == setting
        assert found[bad].any() == (setting != name)
    assert max(scores[f"{name}={int(name) - 1}"], scores[f"{name}={int(name) + 1}"]) < 0.1
    assert 0.2 < scores[name] < scores[None]  # cells end there, or all are merged there


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.name.endswith("agglomerate")]


def test_affinities_that_the_fragments_were_not_made_from_are_told(cells, fragments, tmp_path, caplog):
    """Two networks may share the work; a prediction that was made anew is a mistake."""
    agglomerate_fragments(cells.path / "affs", fragments, tmp_path / "edges", "mean")
    assert (warnings_of(caplog), read_manifest(tmp_path / "edges")["affinities_of_fragments"]) == ([], True)
    other = write_array(tmp_path / "other.zarr/affs", cells.affs[:, ::-1], offset=(80, 160, 240))
    agglomerate_fragments(other.path, fragments, tmp_path / "edges", "mean")
    assert read_manifest(tmp_path / "edges")["affinities_of_fragments"] is False
    told = f"Warning: {other.path} scores the edges of {fragments}, which was made from other affinities, "
    told += str(cells.path / "affs")
    assert warnings_of(caplog) == [told]


def test_affinities_that_have_changed_are_told(cells, fragments, tmp_path, caplog):
    affs = open_volume(cells.path / "affs", "r+")
    affs.write(affs.roi, affs.read()[:, ::-1])
    agglomerate_fragments(affs.path, fragments, tmp_path / "edges", "mean")
    assert warnings_of(caplog) == [
        f"Warning: {affs.path} has changed since {fragments} was made from it; it scores the edges all the same"
    ]


def forget(fragments, *keys):
    """Take from the record of fragments what earlier versions did not write."""
    path = manifest_path(fragments.parent)
    manifest = json.loads(path.read_text())
    for record in (manifest, manifest["settings"]):
        for key in keys:
            record.pop(key, None)
    path.write_text(json.dumps(manifest))


def copied(cells, path):
    """Affinities in a copy of their container, with new times, beside another array."""
    shutil.copytree(cells.path, path, copy_function=shutil.copyfile)
    write_array(path / "later", cells.labels)
    return path / "affs"


def test_a_copy_of_the_affinities_is_no_other(cells, fragments, tmp_path, caplog):
    agglomerate_fragments(copied(cells, tmp_path / "copy.zarr"), fragments, tmp_path / "edges", "mean")
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("known", ["state of the files", "names and sizes", "nothing"])
def test_fragments_of_an_earlier_version(cells, fragments, tmp_path, caplog, known):
    affs = cells.path / "affs"
    forget(fragments, "seen")
    if known == "state of the files":
        write_array(cells.path / "later", cells.labels)
    else:
        forget(fragments, "files", *(["inputs"] if known == "nothing" else []))
        affs = Path(shutil.copytree(cells.path, tmp_path / "copy.zarr", copy_function=shutil.copyfile)) / "affs"
    agglomerate_fragments(affs, fragments, tmp_path / "edges", "mean")
    assert warnings_of(caplog) == []
    other = write_array(tmp_path / "other.zarr/affs", cells.affs[:, ::-1], offset=(80, 160, 240))
    agglomerate_fragments(other.path, fragments, tmp_path / "edges", "mean")
    assert len(warnings_of(caplog)) == (known != "nothing")


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
