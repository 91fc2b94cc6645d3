"""Exports of segmentations, read back by other readers than the writer: voxels, meshes, skeletons, the table."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore

from builders import files_in, write_array
from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate
from emsuite.data.downsample import downsample
from emsuite.export import scales
from emsuite.export.export import Shapes, export_precomputed, export_table
from export_reader import is_watertight, read_fragments, read_manifest, read_mesh, read_skeleton, volume_of
from killed import MOMENTS, Killed, check_removals

LARGE = 2**63 + 5
SIZE, OFFSET = (20, 8, 8), (40, 16, 80)
SMALL = Coordinate(16 * 20, 16 * 8, 16 * 8)
"""Blocks of 16^3 voxels."""


def scene(path: Path) -> np.ndarray:
    """A box across blocks, a ball, a straight tube, a voxel and a segment that touches the faces."""
    labels = np.zeros((24, 40, 80), np.uint64)
    labels[4:20, 5:21, 10:30] = 2**33 + 1
    z, y, x = np.mgrid[:24, :40, :80]
    labels[((z - 12) * 20) ** 2 + ((y - 16) * 8) ** 2 + ((x - 55) * 8) ** 2 <= 100**2] = LARGE
    labels[10:14, 30:36, 4:76] = 9
    labels[2, 2, 2] = 3
    labels[:, 38:, :] = 4
    write_array(path, labels, SIZE, OFFSET)
    return labels


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, Path]:
    folder = tmp_path_factory.mktemp("export")
    labels = scene(folder / "s.zarr/segmentation")
    number = export_precomputed(
        folder / "s.zarr/segmentation", folder / "x.precomputed", block_size=SMALL, shapes=Shapes(3, True)
    )
    assert number == 5
    return labels, folder / "x.precomputed"


def rows_of(path: Path) -> dict[int, dict[str, str]]:
    with open(path, newline="") as file:
        return {int(row["id"]): row for row in csv.DictReader(file)}


def stored(folder: Path, scale: int) -> Any:
    spec = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": f"{folder}/"}}
    return tensorstore.open(spec | {"scale_index": scale}, read=True).result()


def test_tensorstore_reads_the_voxels_and_their_places(exported: tuple[np.ndarray, Path]) -> None:
    labels, folder = exported
    finest = stored(folder, 0)
    np.testing.assert_array_equal(finest.read().result()[..., 0].T, labels)
    assert finest.domain.origin[:3] == (10, 2, 2)
    info = json.loads((folder / "info").read_text())
    assert [scale["resolution"] for scale in info["scales"]] == [[8, 8, 20], [16, 16, 20]]
    assert {scale["encoding"] for scale in info["scales"]} == {"compressed_segmentation"}
    assert (info["type"], info["mesh"], info["skeletons"]) == ("segmentation", "mesh", "skeletons")
    np.testing.assert_array_equal(stored(folder, 1).read().result()[..., 0].T, downsample(labels, (1, 2, 2), "mode"))


def test_windows_begin_at_whole_coarse_voxels(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (3, 70, 71), np.uint32)
    write_array(tmp_path / "s.zarr/s", labels, (8, 8, 8), (8, 24, 0))
    export_precomputed(tmp_path / "s.zarr/s", tmp_path / "x.precomputed", shapes=Shapes(0))
    coarse = stored(tmp_path / "x.precomputed", 1)
    assert coarse.domain.origin[:3] == (0, 1, 0)
    cut = np.pad(labels, ((1, 0), (1, 0), (0, 0)), mode="edge")
    np.testing.assert_array_equal(coarse.read().result()[..., 0].T, downsample(cut, (2, 2, 2), "mode"))
    assert not (tmp_path / "x.precomputed/mesh").exists()


def test_the_table_has_counts_boxes_and_centres(exported: tuple[np.ndarray, Path]) -> None:
    labels, folder = exported
    table = rows_of(folder / "segments.csv")
    assert list(table) == [3, 4, 9, 2**33 + 1, LARGE]
    for segment, row in table.items():
        places = np.argwhere(labels == segment)
        assert int(row["voxels"]) == len(places)
        assert int(row["volume_nm3"]) == len(places) * 20 * 8 * 8
        for axis, name in enumerate("zyx"):
            assert float(row[f"begin_{name}_nm"]) == OFFSET[axis] + places[:, axis].min() * SIZE[axis]
            assert float(row[f"end_{name}_nm"]) == OFFSET[axis] + (places[:, axis].max() + 1) * SIZE[axis]
            centre = OFFSET[axis] + (places[:, axis].mean() + 0.5) * SIZE[axis]
            assert float(row[f"centre_{name}_nm"]) == pytest.approx(centre, abs=0.001)


def test_the_table_has_surfaces_and_cables(exported: tuple[np.ndarray, Path]) -> None:
    table = rows_of(exported[1] / "segments.csv")
    assert float(table[LARGE]["surface_area_nm2"]) == pytest.approx(4 * np.pi * 100**2, rel=0.05)
    box = 2 * (320 * 128 + 320 * 160 + 128 * 160)
    assert float(table[2**33 + 1]["surface_area_nm2"]) == pytest.approx(box, rel=0.06)
    width = 4 * 20  # of the tube: a branch ends before the face, or in a corner of it
    assert float(table[9]["cable_length_nm"]) == pytest.approx(72 * 8, abs=width)


def test_meshes_are_watertight_across_blocks_and_fragments(exported: tuple[np.ndarray, Path]) -> None:
    labels, folder = exported
    for segment in (3, 4, 9, 2**33 + 1, LARGE):
        for level in range(3):
            vertices, faces = read_mesh(folder / "mesh", segment, level)
            assert is_watertight(faces), (segment, level)
            if segment != 3:
                volume = (labels == segment).sum() * 20 * 8 * 8
                assert volume_of(vertices, faces) == pytest.approx(volume, rel=0.2), (segment, level)


def test_a_box_has_its_extents_in_the_world(exported: tuple[np.ndarray, Path]) -> None:
    vertices, _ = read_mesh(exported[1] / "mesh", 2**33 + 1)
    np.testing.assert_allclose(vertices.min(axis=0), [80 + 10 * 8, 16 + 5 * 8, 40 + 4 * 20], atol=0.1)
    np.testing.assert_allclose(vertices.max(axis=0), [80 + 30 * 8, 16 + 21 * 8, 40 + 20 * 20], atol=0.1)


def test_manifests_list_an_octree_in_z_order(tmp_path: Path) -> None:
    labels = np.zeros((20, 40, 600), np.uint32)
    labels[5:15, 5:35, 3:590] = 1
    write_array(tmp_path / "s.zarr/s", labels)
    export_precomputed(tmp_path / "s.zarr/s", tmp_path / "x.precomputed")
    manifest = read_manifest(tmp_path / "x.precomputed/mesh/1.index")
    assert manifest["chunk"].tolist() == [128 * 8] * 3
    assert manifest["scales"].tolist() == [8, 16, 32]
    assert [positions.tolist() for positions, _ in manifest["fragments"]] == [
        [[n, 0, 0] for n in range(5)],
        [[n, 0, 0] for n in range(3)],
        [[n, 0, 0] for n in range(2)],
    ]
    fragments = read_fragments(tmp_path / "x.precomputed/mesh", 1)
    for level in (1, 2):
        for position, vertices, faces in fragments[level]:
            middle = (position[0] + 0.5) * 1024 * 2**level
            sides = np.sign(np.round(vertices[:, 0] - middle, 1))[faces]
            assert not ((sides.min(axis=1) < 0) & (sides.max(axis=1) > 0)).any(), "no triangle crosses the middle"
    assert is_watertight(read_mesh(tmp_path / "x.precomputed/mesh", 1, 2)[1])


def test_skeletons_lie_in_their_segments(exported: tuple[np.ndarray, Path]) -> None:
    labels, folder = exported
    for segment in (9, 2**33 + 1, LARGE):
        nodes, edges, radius = read_skeleton(folder / "skeletons", segment)
        voxels = ((nodes[:, ::-1] - np.array(OFFSET)) // np.array(SIZE)).astype(int)
        assert (labels[tuple(voxels.T)] == segment).all()
        assert edges.max() < len(nodes)
        assert len(edges) == len(nodes) - 1, "a tree in one piece, across blocks"
        assert (radius > 0).all()
    assert not (folder / "skeletons/3").exists(), "a voxel has no edge"


def test_properties_and_record(exported: tuple[np.ndarray, Path]) -> None:
    _, folder = exported
    properties = json.loads((folder / "segment_properties/info").read_text())["inline"]
    assert properties["ids"] == ["3", "4", "9", str(2**33 + 1), str(LARGE)]
    assert [p["id"] for p in properties["properties"]] == ["volume", "surface_area", "cable_length"]
    manifest = json.loads(folder.with_name("x.precomputed.manifest.json").read_text())
    assert manifest["segments"] == 5
    assert manifest["settings"]["block_size"] == [320, 128, 128]
    assert not (folder / ".export").exists()


def test_any_number_of_workers_writes_the_same_bytes(exported: tuple[np.ndarray, Path], tmp_path: Path) -> None:
    source = exported[1].with_name("s.zarr") / "segmentation"
    shapes = Shapes(3, True)
    export_precomputed(source, tmp_path / "x.precomputed", block_size=SMALL, shapes=shapes, workers=2)
    assert files_in(tmp_path / "x.precomputed") == files_in(exported[1])


def test_a_region_is_exported_alone(exported: tuple[np.ndarray, Path], tmp_path: Path) -> None:
    labels, folder = exported
    source = folder.with_name("s.zarr") / "segmentation"
    number = export_table(source, tmp_path / "t.csv", roi=":,:,160:320", shapes=Shapes(1))
    part = labels[:, :, 10:30]
    table = rows_of(tmp_path / "t.csv")
    assert number == len(table) == len(np.unique(part)) - 1
    assert {int(row["voxels"]) for row in table.values()} == {int((part == s).sum()) for s in np.unique(part) if s}
    assert {row["cable_length_nm"] for row in table.values()} == {""}
    assert (tmp_path / "t.csv.manifest.json").exists()


def test_an_empty_segmentation_has_no_segments(tmp_path: Path) -> None:
    write_array(tmp_path / "s.zarr/s", np.zeros((5, 6, 7), np.uint64))
    assert export_precomputed(tmp_path / "s.zarr/s", tmp_path / "x.precomputed", shapes=Shapes(3, True)) == 0
    assert stored(tmp_path / "x.precomputed", 0).read().result().max() == 0
    assert rows_of(tmp_path / "x.precomputed/segments.csv") == {}
    assert export_table(tmp_path / "s.zarr/s", tmp_path / "t.csv") == 0
    assert export_table(tmp_path / "s.zarr/s", tmp_path / "t.csv", shapes=Shapes(1)) == 0, "over an earlier table"


@pytest.mark.parametrize(
    ("voxels", "words"),
    [
        (np.zeros((4, 4, 4), np.float32), "expected a segmentation: integers"),
        (np.full((4, 4, 4), -1, np.int64), "holds the id -1, expected ids from 0 up"),
        (np.zeros((2, 4, 4, 4), np.uint32), "expected a segmentation: integers"),
    ],
)
def test_other_arrays_are_refused(voxels: np.ndarray, words: str, tmp_path: Path) -> None:
    write_array(tmp_path / "s.zarr/s", voxels)
    with pytest.raises(BadInput, match=words):
        export_precomputed(tmp_path / "s.zarr/s", tmp_path / "x.precomputed")


def test_positions_between_voxels_are_refused(tmp_path: Path) -> None:
    write_array(tmp_path / "s.zarr/s", np.zeros((4, 4, 4), np.uint32), (8, 8, 8), (4, 0, 0))
    with pytest.raises(BadInput, match="expected whole voxels"):
        export_precomputed(tmp_path / "s.zarr/s", tmp_path / "x.precomputed")
    assert not list(tmp_path.glob(".x*"))
    with pytest.raises(BadInput, match=r"expected a folder with the ending \.precomputed"):
        export_precomputed(tmp_path / "s.zarr/s", tmp_path / "x")


@pytest.mark.parametrize(("size", "block"), [((8, 8, 8), (40, 48, 56)), ((50, 4.6, 4.6), (200, 32.2, 27.6))])
def test_random_segments_are_closed_for_any_blocks(size: Any, block: Any, tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 6, (5, 6, 7), np.uint64)
    labels = np.kron(coarse, np.ones((3, 4, 5), np.uint64))
    labels[np.random.default_rng(1).random(labels.shape) < 0.05] = 7
    write_array(tmp_path / "s.zarr/s", labels, size, [3 * n for n in size])
    export_precomputed(tmp_path / "s.zarr/s", tmp_path / "x.precomputed", block_size=Coordinate(*block))
    for segment in range(1, 8):
        if (labels == segment).any():
            for level in range(3):
                assert is_watertight(read_mesh(tmp_path / "x.precomputed/mesh", segment, level)[1]), (segment, level)
    assert sum(
        int(row["voxels"]) for row in rows_of(tmp_path / "x.precomputed/segments.csv").values()
    ) == np.count_nonzero(labels)


def test_a_table_that_was_stopped_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene(tmp_path / "s.zarr/s")
    whole, stopped = tmp_path / "whole.csv", tmp_path / "stopped.csv"
    export_table(tmp_path / "s.zarr/s", whole, block_size=SMALL, shapes=Shapes(1, True))

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("emsuite.export.export.write_segments", stop)
        with pytest.raises(KeyboardInterrupt):
            export_table(tmp_path / "s.zarr/s", stopped, block_size=SMALL, shapes=Shapes(1, True))
    assert stopped.is_dir()
    done = {
        path: path.stat().st_mtime_ns
        for path in stopped.rglob("*.npy")
        if not path.name.endswith(("all.npy", "begins.npy"))
    }
    assert done
    with monkeypatch.context() as patched:
        patched.setattr("emsuite.export.blocks.mesh_labels", stop)
        export_table(tmp_path / "s.zarr/s", stopped, block_size=SMALL, shapes=Shapes(1, True))
    assert stopped.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("export", [export_precomputed, export_table])
def test_a_kill_in_any_removal_changes_no_byte(export: Any, moment: str, tmp_path: Path) -> None:
    labels = np.zeros((20, 20, 40), np.uint32)
    labels[3:17, 4:16, 4:36] = 7
    write_array(tmp_path / "s.zarr/s", labels, SIZE, OFFSET)
    out = "x.precomputed" if export is export_precomputed else "x.csv"
    check_removals(
        lambda folder: export(tmp_path / "s.zarr/s", folder / out, block_size=SMALL, shapes=Shapes(1, True)),
        tmp_path,
        1,
        moment,
    )


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("what", ["create_volume", "run_blocks"])
def test_a_kill_at_any_scale_keeps_the_order_of_scales(
    exported: tuple[np.ndarray, Path], tmp_path: Path, what: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = getattr(scales, what), [0]

    def dying(*args: Any, **more: Any) -> Any:
        made = real(*args, **more)
        calls[0] += 1
        if calls[0] == number + 1:
            raise Killed
        return made

    scene(tmp_path / "s.zarr/segmentation")
    out, options = tmp_path / "x.precomputed", {"block_size": SMALL, "shapes": Shapes(3, True)}
    with monkeypatch.context() as patched:
        patched.setattr(scales, what, dying)
        with pytest.raises(Killed):
            export_precomputed(tmp_path / "s.zarr/segmentation", out, **options)  # type: ignore[arg-type]
    export_precomputed(tmp_path / "s.zarr/segmentation", out, **options)  # type: ignore[arg-type]
    assert files_in(out) == files_in(exported[1])


LOST = {
    "mesh": "mesh/9",
    "index": "mesh/4.index",
    "skeleton": "skeletons/9",
    "measures": ".export/segments/0.measures.npy",
    "voxels": "8_8_20/*",
    "coarser voxels": "16_16_20/*",
}


@pytest.mark.parametrize("how", ["gone", "empty"])
@pytest.mark.parametrize("name", LOST.values(), ids=LOST.keys())
def test_files_that_a_stopped_run_lost_are_written_again(
    exported: tuple[np.ndarray, Path], tmp_path: Path, name: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the machine went down, or where a folder was copied while a run wrote it."""

    def dying(*_: Any) -> None:
        raise Killed

    scene(tmp_path / "s.zarr/segmentation")
    out, options = tmp_path / "x.precomputed", {"block_size": SMALL, "shapes": Shapes(3, True)}
    with monkeypatch.context() as patched:
        patched.setattr("emsuite.export.export._describe", dying)
        with pytest.raises(Killed):
            export_precomputed(tmp_path / "s.zarr/segmentation", out, **options)  # type: ignore[arg-type]
    lost = sorted(out.glob(name))
    assert lost
    for file in lost:
        if how == "gone":
            file.unlink()
        else:
            file.write_bytes(b"")
    export_precomputed(tmp_path / "s.zarr/segmentation", out, **options)  # type: ignore[arg-type]
    assert files_in(out) == files_in(exported[1])
