import numpy as np
import pytest

from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.outputs import manifest_path, output, unfinished_path
from emsuite.segmentation.graph_tables import digest_tables, edges_digest, read_edges, read_nodes, write_block
from emsuite.segmentation.region_graph import Edges, Nodes


def nodes(*ids):
    return Nodes(np.array(ids, np.uint64), *np.random.default_rng(0).random((3, len(ids))), np.arange(len(ids)))


def edges(*rows):
    u, v, score, contact = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Edges(np.array(u), np.array(v), np.array(score), np.array(contact))


def finish(folder, *tables):
    with output(folder, {}) as made:
        for block, table in enumerate(tables):
            write_block(folder, block, table)
        made.notes["blocks"] = len(tables)


def test_nodes_of_all_blocks_come_back_sorted(tmp_path):
    finish(tmp_path / "nodes", nodes(9, 7), nodes(), nodes(2**63, 1))
    back = read_nodes(tmp_path / "nodes")
    assert back.id.tolist() == [1, 7, 9, 2**63]
    assert back.size.tolist() == [1, 1, 0, 0]
    assert [column.dtype for column in back] == [np.uint64, np.float64, np.float64, np.float64, np.int64]


def test_edges_of_all_blocks_come_back(tmp_path):
    finish(tmp_path / "edges", edges((1, 2, 0.5, 3)), edges(), edges((3, 2**63, np.inf, 1)))
    back = read_edges(tmp_path / "edges")
    assert [column.tolist() for column in back] == [[1, 3], [2, 2**63], [0.5, np.inf], [3, 1]]
    assert [column.dtype for column in back] == [np.uint64, np.uint64, np.float32, np.int64]


def test_no_nan_is_written(tmp_path):
    with pytest.raises(RunFailed, match="block 4: an edge scores NaN"):
        write_block(tmp_path, 4, edges((1, 2, np.nan, 3)))
    assert not list(tmp_path.iterdir())


def test_no_nan_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("numpy.isnan", lambda array: np.zeros(array.shape, bool))
    finish(tmp_path / "edges", edges((1, 2, np.nan, 3), (1, 3, 0.5, 3)))
    monkeypatch.undo()
    with pytest.raises(BadInput, match="1 edges score NaN"):
        read_edges(tmp_path / "edges")


@pytest.mark.parametrize("ids", [(0, 1), (1, 1)])
def test_ids_are_there_once_and_not_0(tmp_path, ids):
    finish(tmp_path / "nodes", nodes(ids[0]), nodes(ids[1]))
    with pytest.raises(BadInput, match="expected each id once"):
        read_nodes(tmp_path / "nodes")


def test_an_interrupted_graph_is_refused(tmp_path):
    folder = tmp_path / "nodes"
    with pytest.raises(BadInput, match="no graph there"):
        read_nodes(folder)
    finish(folder, nodes(1), nodes(2))
    (folder / "1.parquet").rename(tmp_path / "aside")
    with pytest.raises(BadInput, match=r"lacks some of 2 blocks \(\['1.parquet'\]\)"):
        read_nodes(folder)
    (tmp_path / "aside").rename(folder / "1.parquet")
    manifest_path(folder).rename(unfinished_path(folder))
    with pytest.raises(BadInput, match="unfinished"):
        read_nodes(folder)


def test_tables_of_another_kind_or_cut_short_are_refused(tmp_path):
    folder = tmp_path / "nodes"
    finish(folder, nodes(1))
    with pytest.raises(BadInput, match=r"0.parquet: .*expected u, v, score, contact|is no table with u, v"):
        read_edges(folder)
    (folder / "0.parquet").write_bytes((folder / "0.parquet").read_bytes()[:-40])
    with pytest.raises(BadInput, match="is no table with id, z, y, x, size"):
        read_nodes(folder)


def test_the_digest_is_of_content(tmp_path):
    for name, ids in {"a": (1, 2), "b": (1, 2), "c": (1, 3)}.items():
        write_block(tmp_path / name, 0, nodes(*ids))
    found = {name: digest_tables(tmp_path / name, 1) for name in "abc"}
    assert found["a"] == found["b"] != found["c"]
    assert found["a"][0] == 2


def test_the_digest_of_edges_is_that_of_their_tables(tmp_path):
    columns = [np.array([value, value + 1], dtype) for value, dtype in ((1, np.uint64), (2, np.uint64))]
    for name, score in {"a": 0.3, "b": 0.3, "c": 0.4}.items():
        finish(tmp_path / name, Edges(*columns, np.full(2, score, np.float32), np.ones(2, np.int64)))
    found = {name: edges_digest(tmp_path / name) for name in "abc"}
    assert found["a"] == found["b"] != found["c"]
    (tmp_path / "a/0.parquet").unlink()
    with pytest.raises(BadInput, match="a: lacks some of 1 blocks"):
        edges_digest(tmp_path / "a")
