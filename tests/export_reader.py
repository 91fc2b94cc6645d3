"""A reader of precomputed meshes and skeletons, by neuroglancer's pages alone; nothing of the writer is used."""

import json
import struct
from pathlib import Path
from typing import Any

import DracoPy
import numpy as np

INT32 = 5
"""Draco's number of that type."""


def read_manifest(path: Path) -> dict[str, Any]:
    """What a `.index` says: cells, scales, and for each level the positions and sizes of fragments."""
    data = path.read_bytes()
    at = 0

    def take(dtype: str, count: int) -> np.ndarray:
        nonlocal at
        values = np.frombuffer(data, dtype, count, at)
        at += values.nbytes
        return values

    chunk, origin = take("<f4", 3), take("<f4", 3)
    levels = int(take("<u4", 1)[0])
    scales, offsets = take("<f4", levels), take("<f4", 3 * levels).reshape(levels, 3)
    numbers = take("<u4", levels)
    fragments = [(take("<u4", 3 * n).reshape(3, n).T, take("<u4", n)) for n in map(int, numbers)]
    assert at == len(data)
    return {"chunk": chunk, "origin": origin, "scales": scales, "offsets": offsets, "fragments": fragments}


def read_fragments(folder: Path, segment: int) -> list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """For each level, the fragments of a segment: position, vertices in nm (x y z), faces; empty ones left out."""
    info = json.loads((folder / "info").read_text())
    assert info["@type"] == "neuroglancer_multilod_draco"
    assert info["transform"] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    largest = 2 ** info["vertex_quantization_bits"] - 1
    manifest, data = read_manifest(folder / f"{segment}.index"), (folder / str(segment)).read_bytes()
    begin, found = 0, []
    for level, (positions, sizes) in enumerate(manifest["fragments"]):
        found.append([])
        for position, size in zip(positions, sizes, strict=True):
            if size:
                mesh = DracoPy.decode(data[begin : begin + int(size)])
                points = np.asarray(mesh.points)
                (position_attribute,) = mesh.attributes
                assert position_attribute["data_type"] == INT32, "all that neuroglancer's decoder takes of integers"
                assert points.max() <= largest
                inside = position + points.astype(np.float64) / largest
                vertices = manifest["origin"] + manifest["offsets"][level] + manifest["chunk"] * 2**level * inside
                found[-1].append((position, vertices, np.asarray(mesh.faces).astype(np.int64)))
            begin += int(size)
    assert begin == len(data)
    return found


def read_mesh(folder: Path, segment: int, level: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """All fragments of a level as one mesh, vertices at the same place as one: (N, 3) nm x y z, (M, 3)."""
    parts = read_fragments(folder, segment)[level]
    first = np.cumsum([0, *(len(vertices) for _, vertices, _ in parts)])
    vertices = np.concatenate([vertices for _, vertices, _ in parts])
    faces = np.concatenate([faces + begin for (_, _, faces), begin in zip(parts, first, strict=False)])
    _, unique, place = np.unique(np.rint(vertices * 16), axis=0, return_index=True, return_inverse=True)
    faces = place.reshape(-1)[faces]
    a, b, c = faces.T
    return vertices[unique], faces[(a != b) & (b != c) & (c != a)]


def is_watertight(faces: np.ndarray) -> bool:
    """Whether each edge of a triangle is met by one in the other direction."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    there = edges[np.lexsort(edges.T)]
    back = edges[:, ::-1]
    return np.array_equal(there, back[np.lexsort(back.T)])


def volume_of(vertices: np.ndarray, faces: np.ndarray) -> float:
    """The volume inside a closed mesh, above 0 if its triangles look outwards."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def read_skeleton(folder: Path, segment: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes (nm, x y z), edges and radii."""
    assert json.loads((folder / "info").read_text())["@type"] == "neuroglancer_skeletons"
    data = (folder / str(segment)).read_bytes()
    nodes, edges = struct.unpack_from("<II", data)
    assert len(data) == 8 + nodes * 12 + edges * 8 + nodes * 4
    positions = np.frombuffer(data, "<f4", 3 * nodes, 8).reshape(-1, 3)
    ends = np.frombuffer(data, "<u4", 2 * edges, 8 + 12 * nodes).reshape(-1, 2)
    return positions, ends, np.frombuffer(data, "<f4", nodes, 8 + 12 * nodes + 8 * edges)
