"""Meshes of labels: closed forms of boxes and balls, pieces that join, planes that cut."""

import numpy as np
import pytest

from emsuite.export.mesh import UNITS, Mesh, cut, join, mesh_labels, simplify, surface_area

SCALE = (1.0, 1.0, 1.0)


def ball(radius: float, voxel_size: tuple[float, ...] = (1, 1, 1)) -> np.ndarray:
    """A ball in the middle of background, z y x."""
    half = [int(np.ceil(radius / size)) + 2 for size in voxel_size]
    grid = np.mgrid[tuple(slice(-n, n + 1) for n in half)] * np.array(voxel_size).reshape(3, 1, 1, 1)
    return ((grid**2).sum(axis=0) <= radius**2).astype(np.uint32)


def is_closed(mesh: Mesh) -> bool:
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    there, back = edges @ [len(mesh.vertices), 1], edges @ [1, len(mesh.vertices)]
    return np.array_equal(np.sort(there), np.sort(back))


def test_a_box_has_its_extents() -> None:
    labels = np.zeros((9, 12, 20), np.uint32)
    labels[2:5, 3:10, 4:17] = 7
    ((label, mesh),) = mesh_labels(labels, SCALE)
    assert label == 7
    assert (mesh.vertices.min(axis=0) / UNITS).tolist() == [4, 3, 2]
    assert (mesh.vertices.max(axis=0) / UNITS).tolist() == [17, 10, 5]
    assert is_closed(mesh)


@pytest.mark.parametrize("radius", [6, 12, 25])
def test_a_ball_has_its_surface(radius: int) -> None:
    ((_, mesh),) = mesh_labels(ball(radius), SCALE)
    assert surface_area(mesh, (8, 8, 8)) == pytest.approx(4 * np.pi * (8 * radius) ** 2, rel=0.025)


def test_a_ball_of_flat_voxels_has_its_surface() -> None:
    size = (50, 4.6, 4.6)
    ((_, mesh),) = mesh_labels(ball(300, size), (1, 1, 50 / 4.6))
    assert surface_area(mesh, size[::-1]) == pytest.approx(4 * np.pi * 300**2, rel=0.03)


def test_a_cube_has_its_surface() -> None:
    labels = np.pad(np.ones((40, 40, 40), np.uint32), 1)
    ((_, mesh),) = mesh_labels(labels, SCALE)
    # marching cubes cut the edges: 12 edges of 39 voxels lose 1 - 0.71 of a voxel each
    assert surface_area(mesh, (8, 8, 8)) == pytest.approx(6 * 320**2, rel=0.03)


def test_pieces_of_two_blocks_join_without_a_seam() -> None:
    labels = ball(15)
    half = labels.shape[0] // 2
    ((_, front),) = mesh_labels(labels[: half + 1], SCALE)
    ((_, back),) = mesh_labels(labels[half:], SCALE)
    assert not is_closed(front)
    back = Mesh(back.vertices + np.array([0, 0, half * UNITS]), back.faces)
    assert is_closed(join([front, back]))


def test_a_simpler_mesh_is_closed_and_about_as_large() -> None:
    ((_, mesh),) = mesh_labels(ball(20), SCALE)
    simple = simplify(mesh, SCALE)
    assert len(simple.faces) <= 0.3 * len(mesh.faces)
    assert is_closed(simple)
    assert np.abs(simple.vertices.min(axis=0) - mesh.vertices.min(axis=0)).max() <= UNITS
    tetrahedron = Mesh(np.eye(4, 3, dtype=np.int64) * UNITS, np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]]))
    assert len(simplify(tetrahedron, SCALE).faces) == 4, "never nothing"


def test_cut_triangles_stay_on_one_side_and_share_vertices() -> None:
    ((_, mesh),) = mesh_labels(ball(20), SCALE)
    step = (5 * UNITS, 7 * UNITS, 3 * UNITS)
    parts = cut(mesh, step)
    corners = parts.vertices[parts.faces]
    low, high = corners.min(axis=1) // step, -(-corners.max(axis=1) // np.array(step))
    assert (high - low).max() <= 1
    assert is_closed(parts)
    assert surface_area(parts, (1, 1, 1)) == pytest.approx(surface_area(mesh, (1, 1, 1)), rel=0.02)


@pytest.mark.parametrize("points", [([0, 0, 0], [10, 0, 0], [0, 10, 0]), ([4, 0, 0], [0, 8, 0], [9, 9, 0])])
def test_a_cut_triangle_keeps_its_area(points: tuple[list[int], ...]) -> None:
    parts = cut(Mesh(np.array(points), np.array([[0, 1, 2]])), (4, 100, 100))
    corners = parts.vertices[parts.faces]
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] / 2
    a, b, c = map(np.array, points)
    whole = np.cross(b - a, c - a)[2] / 2
    assert areas.sum() == pytest.approx(whole, abs=3), "vertices are rounded to whole units"
    assert (np.sign(areas) == np.sign(whole)).all()
