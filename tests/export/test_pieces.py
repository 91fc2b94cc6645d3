"""Pieces of segments in the files of blocks."""

from pathlib import Path

import numpy as np

from emsuite.export.mesh import Mesh
from emsuite.export.pieces import (
    ROW,
    Piece,
    forget,
    gather_rows,
    read_meshes,
    read_runs,
    read_segment,
    write_pieces,
)


def rows_of(block: int, *segments: int) -> np.ndarray:
    rows = np.zeros(len(segments), ROW)
    rows["segment"], rows["block"] = segments, block
    return rows


def test_pieces_of_a_segment_come_from_all_blocks(tmp_path: Path) -> None:
    first = Mesh(np.arange(9).reshape(3, 3), np.array([[0, 1, 2]]))
    second = Mesh(np.arange(12).reshape(4, 3), np.array([[0, 1, 2], [1, 2, 3]]))
    runs = np.array([[0, 0, 3, 5], [0, 1, 2, 8]], np.int32)
    large = 2**64 - 1
    write_pieces(tmp_path, 0, rows_of(0, 5, large), {0: Piece(first), 1: Piece(second, runs)})
    write_pieces(tmp_path, 1, rows_of(1, large), {0: Piece(first)})
    write_pieces(tmp_path, 2, rows_of(2), {})
    forget()
    assert gather_rows(tmp_path, range(3))["segment"].tolist() == [5, large, large]
    meshes = read_meshes(tmp_path, read_segment(tmp_path, 1))
    for found, given in zip(meshes, (second, first), strict=True):
        np.testing.assert_array_equal(found.vertices, given.vertices)
        np.testing.assert_array_equal(found.faces, given.faces)
    assert [part.tolist() for part in read_runs(tmp_path, read_segment(tmp_path, 1))] == [runs.tolist(), []]
    assert [len(part) for part in read_runs(tmp_path, read_segment(tmp_path, 0))] == [0]


def test_no_blocks_have_no_rows(tmp_path: Path) -> None:
    assert len(gather_rows(tmp_path, range(2))) == 0
