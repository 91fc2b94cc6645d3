import json

import numpy as np
import pytest

from emsuite.common.errors import BadInput
from emsuite.common.files import write_json
from emsuite.common.outputs import manifest_path
from emsuite.evaluation.scores import variation_of_information
from emsuite.io.relabel import relabel
from emsuite.io.tables import read_columns, write_columns
from emsuite.io.volume import fingerprint, open_volume
from emsuite.segmentation import extract_segmentation as stage
from emsuite.segmentation.agglomerate import agglomerate_fragments
from emsuite.segmentation.extract_fragments import extract_fragments
from emsuite.segmentation.extract_segmentation import best_threshold, extract_segmentation
from emsuite.segmentation.find_segments import find_segments, lookup_digest, read_lookup
from emsuite.segmentation.fragments import FragmentSettings

BLOCKS = {"block_size": (160, 160, 160), "context": (64, 64, 64)}


def segment(cells, out, threshold=0.5, workers=1, **blocks):
    fragments = out / "fragments.zarr/fragments"
    extract_fragments(cells.path / "affs", out, FragmentSettings(flood="distance"), workers=workers, **blocks)
    agglomerate_fragments(cells.path / "affs", fragments, out / "graph/edges", "hist_quant_90", workers=workers)
    find_segments(out / "graph/nodes", out / "graph/edges", out / "lookup", [threshold])
    extract_segmentation(fragments, out / "lookup", threshold, out / "segmentation.zarr", workers=workers)
    return open_volume(out / "segmentation.zarr/segmentation")


def contents(folder):
    """All that a run wrote but its manifests, which tell when and where it ran."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.endswith(".manifest.json"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize("blocks", [{}, BLOCKS])
def test_perfect_affinities_give_the_cells_back(cells, tmp_path, blocks):
    segmentation = segment(cells, tmp_path, **blocks)
    voi = variation_of_information(segmentation.read(), cells.labels)
    assert voi.merge == 0
    assert voi.split < (0.001 if blocks else 1e-9)  # a voxel that a border cuts off may stay alone
    assert segmentation.roi == open_volume(cells.path / "labels").roi
    assert segmentation.dtype == np.uint64


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_workers(cells, tmp_path):
    for workers in (1, 2):
        segment(cells, tmp_path / str(workers), workers=workers, **BLOCKS)
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert one == two
    assert len(one) > 50
    assert not [name for name in one if ".blocks" in name or "unfinished" in name]


def test_a_table_of_another_run_is_refused(cells, tmp_path):
    segment(cells, tmp_path / "a")
    segment(cells, tmp_path / "b", **BLOCKS)
    fragments, out = tmp_path / "a/fragments.zarr/fragments", tmp_path / "c.zarr"
    with pytest.raises(BadInput, match="lookup: was made from other fragments"):
        extract_segmentation(fragments, tmp_path / "b/lookup", 0.5, out)
    with pytest.raises(BadInput, match=r"no table for threshold 0.7"):
        extract_segmentation(fragments, tmp_path / "a/lookup", 0.7, out)
    assert not out.exists()


def test_a_stopped_run_keeps_no_blocks_of_another_table(cells, tmp_path, monkeypatch):
    segment(cells, tmp_path, threshold=1.0, **BLOCKS)
    fragments, lookup, out = tmp_path / "fragments.zarr/fragments", tmp_path / "lookup", tmp_path / "stopped.zarr"
    relabel_block, blocks = stage._RelabelBlock.__call__, []

    def stop(process, block):
        blocks.append(block)
        if len(blocks) > 4:
            raise KeyboardInterrupt
        relabel_block(process, block)

    monkeypatch.setattr(stage._RelabelBlock, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        extract_segmentation(fragments, lookup, 1.0, out)
    assert list((out / ".blocks").iterdir()), "blocks of the first table"
    monkeypatch.undo()
    table = lookup / "segments.parquet"
    ids = read_columns(table, ["fragment"])[0]
    write_columns(table, {"fragment": ids, "1.0": ids})  # the same fragments, none merged
    extract_segmentation(fragments, lookup, 1.0, out)
    assert np.array_equal(open_volume(out / "segmentation").read(), open_volume(fragments).read())


def test_relabelling_leaves_0_and_maps_the_rest():
    voxels = np.array([[0, 7, 7], [9, 0, 2**63]], np.uint64)
    table = np.array([2, 7, 9, 2**63], np.uint64), np.array([2, 2, 9, 7], np.uint64)
    assert relabel(voxels, *table).tolist() == [[0, 2, 2], [9, 0, 7]]
    assert relabel(voxels.T, *table).tolist() == [[0, 9], [2, 0], [2, 7]]


@pytest.mark.parametrize("voxel", [1, 8, 10, 2**64 - 1])
def test_a_fragment_that_the_table_lacks_is_refused(voxel):
    table = np.array([2, 7, 9], np.uint64), np.array([2, 2, 9], np.uint64)
    with pytest.raises(BadInput, match=f"no segment for 1 fragments, {voxel} the first;"):
        relabel(np.array([0, 2, voxel, 7], np.uint64), *table)
    with pytest.raises(BadInput, match=f"no segment for 1 fragments, {voxel} the first;"):
        relabel(np.array([voxel], np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint64))


@pytest.fixture
def lookup(tmp_path):
    """Lookup tables of three fragments, at two thresholds."""
    folder, ids = tmp_path / "lookup", np.array([2, 7, 9], np.uint64)
    folder.mkdir()
    write_columns(folder / "segments.parquet", {"fragment": ids, "0.28": np.array([2, 2, 9], np.uint64), "0.3": ids})
    about = {"settings": {}, "fragments_digest": "of the fragments", "merge_function": "mean"}
    write_json(manifest_path(folder), about)
    return folder


def write_best(path, **content):
    path.write_text(json.dumps({"threshold": 0.28, "best": {"voi_sum": 1.2}} | content))
    return path


def test_the_best_threshold_is_that_of_the_scored_tables(tmp_path, lookup):
    """Another graph or sweep of the same fragments, and other fragments with the same ids, have another one."""
    path = write_best(tmp_path / "scores.json", lookup_digest=lookup_digest(lookup))
    assert best_threshold(path, lookup) == 0.28
    told = r"scores.json: scores other lookup tables than .*lookup; .* --threshold 0.28"
    about, table = manifest_path(lookup).read_text(), (lookup / "segments.parquet").read_bytes()
    manifest_path(lookup).write_text(about.replace("of the fragments", "of others"))
    with pytest.raises(BadInput, match=told):
        best_threshold(path, lookup)
    manifest_path(lookup).write_text(about)
    ids, segments = read_lookup(lookup, 0.28)
    write_columns(lookup / "segments.parquet", {"fragment": ids, "0.28": segments, "0.3": segments})
    with pytest.raises(BadInput, match=told):
        best_threshold(path, lookup)
    (lookup / "segments.parquet").write_bytes(table)
    assert best_threshold(path, lookup) == 0.28


def test_scores_of_an_earlier_version(tmp_path, lookup):
    """Their record tells the names and sizes of the lookup tables."""
    inputs = {"lookup": {"path": "lookup", "checksum": fingerprint(lookup)}}
    path = write_best(tmp_path / "scores.json", provenance={"inputs": inputs})
    assert best_threshold(path, lookup) == 0.28
    inputs["lookup"]["checksum"] = "listing:of others"
    write_best(path, provenance={"inputs": inputs})
    with pytest.raises(BadInput, match=r"scores.json: scores other lookup tables than"):
        best_threshold(path, lookup)


def test_the_best_threshold_is_read_from_scores(tmp_path):
    path = write_best(tmp_path / "scores.json")
    assert best_threshold(path, tmp_path / "lookup") == 0.28
    for text in ('{"threshold": null}', "[]", "no json"):
        path.write_text(text)
        with pytest.raises(BadInput, match=r"scores.json: holds no number under 'threshold'"):
            best_threshold(path, tmp_path / "lookup")
