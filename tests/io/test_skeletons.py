import os
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from emsuite.common.errors import BadInput
from emsuite.common.outputs import unfinished_path
from emsuite.io.skeletons import Skeletons, load_skeletons


def fork(**changed):
    """Two skeletons: a fork of four nodes, and a line of two."""
    content = {
        "ids": np.array([10, 11, 12, 13, 7, 8]),
        "skeleton": np.array([1, 1, 1, 1, 2, 2]),
        "positions": np.array([[0, 0, 0], [0, 0, 30], [0, 40, 30], [0, 0, 90], [5, 5, 5], [5, 5, 25.0]]),
        "radius": np.full(6, 12.5),
        "edges": np.array([[10, 11], [12, 11], [11, 13], [8, 7]]),
    }
    return Skeletons(**content | changed)


def test_lengths_are_physical():
    assert fork().lengths.tolist() == [30, 40, 60, 20]


def test_saved_and_loaded_are_equal(tmp_path):
    fork().save(tmp_path / "a.skeletons")
    loaded = load_skeletons(tmp_path / "a.skeletons")
    for name in ("ids", "skeleton", "positions", "radius", "edges"):
        assert np.array_equal(getattr(loaded, name), getattr(fork(), name)), name
    table = pyarrow.parquet.read_table(tmp_path / "a.skeletons/nodes.parquet")
    assert table.column_names == ["id", "skeleton", "z", "y", "x", "radius"]
    assert [str(kind) for kind in table.schema.types] == ["int64", "int64", "double", "double", "double", "double"]


def test_marks_of_synapses_are_saved_loaded_and_cut(tmp_path):
    marks = np.array([True, False, True, False, False, True])
    fork(synapse=marks).save(tmp_path / "a.skeletons")
    loaded = load_skeletons(tmp_path / "a.skeletons")
    assert loaded.synapse.tolist() == marks.tolist()
    assert loaded.subset(loaded.ids > 9).synapse.tolist() == marks[:4].tolist()
    assert fork().subset(np.ones(6, bool)).synapse is None


def test_marks_that_are_no_marks_are_refused(tmp_path):
    fork().save(tmp_path / "a.skeletons")
    path = tmp_path / "a.skeletons/nodes.parquet"
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.append_column("synapse", pyarrow.array(["no"] * 6)), path)
    with pytest.raises(BadInput, match="column 'synapse' holds object"):
        load_skeletons(tmp_path / "a.skeletons")


def test_a_subset_loses_the_edges_that_lose_an_end():
    left = fork().subset(np.array([True, True, False, True, True, False]))
    assert left.ids.tolist() == [10, 11, 13, 7]
    assert left.edges.tolist() == [[10, 11], [11, 13]]
    assert left.lengths.tolist() == [30, 60]


def test_reads_a_folder_of_swc(tmp_path):
    (tmp_path / "a.swc").write_text(
        "# made by hand\n1 2 30 20 10 5 -1\n5 2 33 24 10 5 1 # a child\n\n3 2 33 24 70 4 5\n"
    )
    (tmp_path / "b.swc").write_text("1 0 0 0 0 1 -1\n")
    read = load_skeletons(tmp_path)
    assert read.positions.tolist() == [[10, 20, 30], [10, 24, 33], [70, 24, 33], [0, 0, 0]]
    assert read.skeleton.tolist() == [1, 1, 1, 2]
    assert read.radius.tolist() == [5, 5, 4, 1]
    assert read.lengths.tolist() == [5, 60]


def test_positions_that_are_far_away_have_lengths():
    far = fork(positions=np.linspace([-1e15] * 3, [1e15] * 3, 6))
    assert np.isfinite(far.lengths).all()
    assert (far.positions + 1 != far.positions).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ids": np.array([10, 11, 12, 13, 7, 7])}, "node 7 is there 2 times"),
        ({"edges": np.array([[10, 99]])}, "node 99, which is not among the nodes"),
        ({"edges": np.array([[10, 8]])}, "joins two skeletons"),
        ({"edges": np.array([[10, 11], [11, 10]])}, "edge 10 to 11 is there 2 times"),
        ({"positions": np.full((6, 3), np.nan)}, "position of node 10 is not finite"),
        (
            {"positions": np.diag([1, 1e300, 1, 1, 1, 1])[:, :3]},
            "node 11 lies at 1e[+]300 nm, expected at most 1e[+]15",
        ),
        ({"positions": np.full((6, 3), -2e15)}, "node 10 lies at 2e[+]15 nm"),
        ({"ids": np.empty(0, int), "edges": np.empty((0, 2), int)}, "holds no nodes"),
    ],
)
def test_skeletons_that_make_no_sense_are_refused(changed, message):
    with pytest.raises(BadInput, match=message):
        fork(**changed)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


SPOILED = {
    "unfinished": lambda folder: unfinished_path(folder).write_text("{}"),
    "edges.parquet: no such file": lambda folder: (folder / "edges.parquet").unlink(),
    "nodes.parquet: not a Parquet table": lambda folder: truncate(folder / "nodes.parquet"),
    "no column 'skeleton'; it holds id": lambda folder: pyarrow.parquet.write_table(
        pyarrow.table({"id": [1]}), folder / "nodes.parquet"
    ),
    "edges.parquet: .*expected u int64": lambda folder: pyarrow.parquet.write_table(
        pyarrow.table({"u": [0.5], "v": [1.5]}), folder / "edges.parquet"
    ),
}
SWC = {
    "a.swc:1: .* is no row of numbers": "1 2 x y z 5 -1\n",
    "a.swc:2: 6 numbers, expected 7": "1 0 0 0 0 1 -1\n1 2 3 4 5 6\n",
    "a.swc: the parent 7 of a node is not in the file": "1 0 0 0 0 1 -1\n2 0 0 0 0 1 7\n",
    "a.swc: .* a node twice": "1 0 0 0 0 1 -1\n1 0 0 0 0 1 -1\n",
    "a.swc: .* not finite": "1 0 nan 0 0 1 -1\n",
    "a.swc: holds no nodes": "# nothing\n",
}


@pytest.mark.parametrize("message", SPOILED)
def test_tables_that_are_no_skeletons_are_refused(tmp_path, message):
    folder = tmp_path / "bad.skeletons"
    fork().save(folder)
    SPOILED[message](folder)
    with pytest.raises(BadInput, match=message):
        load_skeletons(folder)


@pytest.mark.parametrize("message", SWC)
def test_swc_files_that_are_no_skeletons_are_refused(tmp_path, message):
    (tmp_path / "a.swc").write_text(SWC[message])
    with pytest.raises(BadInput, match=message):
        load_skeletons(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_swc_that_are_no_files_are_refused(tmp_path, kind):
    path = tmp_path / "a.swc"
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](path)
    with pytest.raises(BadInput, match=r"a.swc: is (no regular file|a folder); expected a file of skeletons, SWC"):
        load_skeletons(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match="none: no such folder"):
        load_skeletons(tmp_path / "none")
