"""Copies between formats: a matrix of types, orders and layouts, and all that cannot be copied."""

import hashlib
import itertools
import json
import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from builders import files_in, write_array
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.outputs import read_manifest
from emsuite.data import convert as module
from emsuite.data import copied_blocks as blocks
from emsuite.data.convert import Layout, convert
from emsuite.io.volume import Volume, create_volume, open_volume
from killed import MOMENTS, Killed, check_removals, killed_at_rename

SIZE, OFFSET = (40, 8, 4), (400, -8, 12)
TYPES = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">u2", ">i8", ">f4"]


def voxels_of(dtype: str, shape: tuple[int, ...] = (5, 6, 7)) -> np.ndarray:
    """Voxels that reach the ends of their type."""
    kind = np.dtype(dtype)
    voxels = np.random.default_rng(0).integers(0, 100, shape).astype(kind)
    if kind.kind in "iu":
        voxels.flat[:2] = np.iinfo(kind).min, np.iinfo(kind).max
    if kind.kind == "f":
        voxels.flat[:3] = np.nan, np.inf, -0.0
    return voxels


def stored(folder: Path, form: str, voxels: np.ndarray, **attributes: Any) -> Path:
    """An array in a container of that form, as another program writes it."""
    about = {"resolution": SIZE, "offset": OFFSET, **attributes}
    if form == "hdf5":
        with h5py.File(folder / "from.h5", "w") as file:
            file.create_dataset("volumes/raw", data=voxels).attrs.update(about)
        return folder / "from.h5/volumes/raw"
    root = zarr.open_group(folder / "from.zarr", mode="w", zarr_format=int(form[-1]))  # type: ignore[arg-type]
    array = root.create_array("volumes/raw", shape=voxels.shape, dtype=voxels.dtype, chunks=(3,) * voxels.ndim)
    array[...] = voxels
    array.attrs.update({key: list(value) if isinstance(value, tuple) else value for key, value in about.items()})
    return folder / "from.zarr/volumes/raw"


def same_bits(copy: Volume, voxels: np.ndarray) -> bool:
    return copy.read().tobytes() == voxels.astype(voxels.dtype.newbyteorder("=")).tobytes()


@pytest.mark.parametrize("to_format", [2, 3])
@pytest.mark.parametrize("form", ["zarr2", "zarr3", "hdf5"])
@pytest.mark.parametrize("dtype", TYPES)
def test_voxels_grid_and_attributes_are_copied(tmp_path: Path, dtype: str, form: str, to_format: Any) -> None:
    voxels = voxels_of(dtype)
    source = stored(tmp_path, form, voxels, of="me", numbers=[1, 2.5])
    to = tmp_path / "to.zarr/volumes/raw"
    digest = convert(source, to, layout=Layout(zarr_format=to_format))
    copy = open_volume(to)
    assert same_bits(copy, voxels)
    assert (copy.dtype, tuple(copy.voxel_size), tuple(copy.offset)) == (np.dtype(dtype).newbyteorder("="), SIZE, OFFSET)
    assert {key: copy.attributes[key] for key in ("of", "numbers")} == {"of": "me", "numbers": [1, 2.5]}
    assert zarr.open_array(to, mode="r").metadata.zarr_format == to_format
    manifest = read_manifest(tmp_path / "to.zarr.volumes.raw")
    blocks = hashlib.sha256(voxels.astype(voxels.dtype.newbyteorder("<")).tobytes()).hexdigest()
    assert manifest["digest"] == digest == hashlib.sha256(blocks.encode()).hexdigest()
    assert not list(tmp_path.rglob("*unfinished*"))
    assert not (tmp_path / "to.zarr.volumes.raw").exists()


@pytest.mark.parametrize("order", ["zyx", "xyz", "czyx", "zyxc"])
@pytest.mark.parametrize("form", ["zarr2", "zarr3", "hdf5"])
def test_every_order_of_axes_becomes_c_z_y_x(tmp_path: Path, form: str, order: str) -> None:
    seen = voxels_of("u2", (2, 5, 6, 7) if "c" in order else (5, 6, 7))
    names = "czyx" if "c" in order else "zyx"
    spatial = [axis for axis in order if axis != "c"]
    about = {key: tuple(dict(zip("zyx", v, strict=True))[a] for a in spatial) for key, v in
             (("resolution", SIZE), ("offset", OFFSET))}  # fmt: skip
    source = stored(tmp_path, form, seen.transpose([names.index(a) for a in order]), axis_names=list(order), **about)
    convert(source, tmp_path / "to.zarr/raw")
    copy = open_volume(tmp_path / "to.zarr/raw")
    assert same_bits(copy, seen)
    assert (tuple(copy.voxel_size), tuple(copy.offset)) == (SIZE, OFFSET)
    assert "axis_names" not in copy.attributes


@pytest.mark.parametrize(("dtype", "other"), [*itertools.product(["?", "u1", "i4", "u8", "f4", "f8"], repeat=2)])
def test_another_type_holds_each_value_or_is_refused(tmp_path: Path, dtype: str, other: str) -> None:
    voxels = (np.arange(60).reshape(3, 4, 5) % 2).astype(dtype)
    to = tmp_path / "to.zarr/raw"
    convert(stored(tmp_path, "zarr3", voxels), to, layout=Layout(np.dtype(other).name))
    assert open_volume(to).dtype == np.dtype(other)
    np.testing.assert_array_equal(open_volume(to).read(), voxels)


@pytest.mark.parametrize(
    ("dtype", "value", "other"),
    [
        ("u2", 256, "u1"),
        ("i1", -1, "u8"),
        ("i8", -1, "u8"),
        ("u8", 2**63, "i8"),
        ("u8", 2**53 + 1, "f8"),
        ("i4", 2**24 + 1, "f4"),
        ("u1", 2, "?"),
        ("f4", 0.5, "u1"),
        ("f4", np.nan, "i8"),
        ("f8", 2.0**64, "u8"),
        ("f8", 0.1, "f4"),
        ("f8", 1e300, "f4"),
        ("f4", 70000.0, "f2"),
    ],
)
def test_a_type_that_does_not_hold_a_voxel_is_refused(tmp_path: Path, dtype: str, value: Any, other: str) -> None:
    voxels = np.zeros((3, 4, 5), dtype)
    voxels[1, 2, 3] = value
    name = np.dtype(other).name
    with pytest.raises(BadInput, match=f"do not all fit {name}, expected a type that holds them"):
        convert(stored(tmp_path, "zarr3", voxels), tmp_path / "to.zarr/raw", layout=Layout(name))
    assert not (tmp_path / "to.zarr/raw").exists()


def test_a_region_chunks_and_shards(tmp_path: Path) -> None:
    voxels = voxels_of("u2", (20, 30, 40))
    source, to = stored(tmp_path, "hdf5", voxels), tmp_path / "to.zarr/raw"
    convert(source, to, roi="440:800,:,20:", layout=Layout(None, (4, 8, 8), (8, 16, 16)), workers=2)
    copy, array = open_volume(to), zarr.open_array(to, mode="r")
    assert same_bits(copy, voxels[1:10, :, 2:])
    assert tuple(copy.offset) == (440, -8, 20)
    assert (array.chunks, array.shards) == ((4, 8, 8), (8, 16, 16))


def test_a_crop_does_not_name_the_sections_of_all(tmp_path: Path) -> None:
    about = {"sections": "s0.tif to s9.tif", "missing_numbers": [4], "stain": "uranyl"}
    source = stored(tmp_path, "zarr3", voxels_of("u1"), **about)
    kept = {}
    for name, roi in (("all", None), ("in plane", ":,0:32,:"), ("crop", "400:480,:,:")):
        convert(source, tmp_path / f"{name}.zarr/raw", roi=roi)
        attributes = open_volume(tmp_path / f"{name}.zarr/raw").attributes
        kept[name] = {key for key in about if key in attributes}
    assert kept == {"all": {*about}, "in plane": {*about}, "crop": {"stain"}}


def test_blocks_are_whole_files_and_not_too_large() -> None:
    assert module._block((64, 64, 64), (1000, 1000, 1000), 8) == (256, 256, 128)
    assert module._block((64, 64, 64), (10, 1000, 1000), 8) == (64, 512, 256)
    assert module._block((512, 512, 512), (1000, 1000, 1000), 8) == (512, 512, 512)


def test_the_number_of_workers_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = stored(tmp_path, "zarr2", voxels_of("f4", (20, 30, 40)))
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1)
    layout = Layout(chunks=(8, 8, 8))
    digests = [convert(source, tmp_path / f"{n}.zarr/raw", layout=layout, workers=n) for n in (1, 2)]
    assert digests[0] == digests[1]
    assert files_in(tmp_path / "1.zarr") == files_in(tmp_path / "2.zarr")


def test_two_arrays_in_one_container_and_a_copy_again(tmp_path: Path) -> None:
    raw = stored(tmp_path, "hdf5", voxels_of("u1"))
    to = tmp_path / "to.zarr/volumes"
    convert(raw, to / "raw")
    convert(raw, to / "labels", layout=Layout("uint64"))
    assert open_volume(to / "raw").dtype == np.uint8, "stays"
    convert(raw, to / "raw", layout=Layout("uint16"))
    assert (open_volume(to / "raw").dtype, open_volume(to / "labels").dtype) == (np.uint16, np.uint64)
    group = json.loads((to / "zarr.json").read_text())["attributes"]["ome"]
    assert [image["name"] for image in group["multiscales"]] == ["raw", "labels"]
    create_volume(tmp_path / "two.zarr/raw", (3, 4, 5), np.uint8, SIZE, OFFSET, zarr_format=2)
    with pytest.raises(BadInput, match="is zarr 2, which has no shards"):
        convert(raw, tmp_path / "two.zarr/other", layout=Layout(None, (4, 4, 4), (8, 8, 8)))


def test_what_cannot_be_copied_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    source = stored(tmp_path, "zarr3", voxels_of("u1"))
    mine = create_volume(tmp_path / "mine.zarr/raw", (3, 4, 5), np.uint8, SIZE, OFFSET).path
    cases: list[tuple[Path, Path, dict[str, Any], str]] = [
        (tmp_path / "no.zarr/raw", tmp_path / "to.zarr/raw", {}, "no.zarr: no such volume"),
        (source, mine, {}, "raw: exists but is no copy that this suite made; remove it or choose another name"),
        (source, source, {}, "is the array to copy, expected another"),
        (source, tmp_path / "to.zarr", {}, "expected an array in a format that can be written"),
        (source, tmp_path / "to.h5", {}, "expected the name of an array in the file too, as"),
        (source, tmp_path / "to.tif/raw", {}, "a TIFF file is one array without a name"),
        (source, tmp_path / "to.tif", {"layout": Layout("uint64")}, "holds no uint64, expected --dtype uint8,"),
        (source, tmp_path / "to.h5/raw", {"layout": Layout(None, (4, 4, 4), (8, 8, 8))}, "zarr 3 alone has shards"),
        (source, tmp_path / "to/raw", {}, "not in a .zarr"),
        (source, tmp_path / "to.zarr/raw", {"roi": "0:40,:,:"}, "but [0:40"),
        (source, tmp_path / "to.zarr/raw", {"roi": "401:441,:,:"}, "does not lie on the voxels"),
        (source, tmp_path / "to.zarr/raw", {"layout": Layout(chunks=(4, 4))}, "chunks of (4, 4) voxels: expected 3"),
        (source, tmp_path / "to.zarr/raw", {"layout": Layout(None, (4, 4, 4), (6, 8, 8))}, "multiples of the chunks"),
        (source, tmp_path / "to.zarr/raw", {"layout": Layout(None, (4, 4, 4), (8, 8, 8), 2)}, "in zarr 3"),
    ]
    for one, to, options, complaint in cases:
        before = files_in(tmp_path)
        with pytest.raises(BadInput) as error:
            convert(one, to, **options)
        assert complaint in str(error.value)
        assert files_in(tmp_path) == before, complaint


def test_a_block_that_reads_back_as_another_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = stored(tmp_path, "zarr3", voxels_of("u1"))
    write = Volume.write
    monkeypatch.setattr(Volume, "write", lambda volume, roi, voxels: write(volume, roi, voxels ^ 1))
    with pytest.raises(RunFailed, match="that were read back differ from those written"):
        convert(source, tmp_path / "to.zarr/raw")
    assert not (tmp_path / "to.zarr/raw").exists()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", ["v.zarr/volumes/raw", "v.n5/raw"])
def test_a_kill_in_any_removal_changes_no_byte(tmp_path: Path, name: str, moment: str) -> None:
    source = stored(tmp_path, "zarr2", voxels_of("u2", (9, 20, 20)))

    def run(folder: Path) -> None:
        if not (folder / name).exists():
            convert(source, folder / name, layout=Layout(chunks=(4, 8, 8)))
        convert(source, folder / name, layout=Layout(chunks=(8, 8, 8)))

    check_removals(run, tmp_path, 3, moment)


def test_every_stop_continues_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = stored(tmp_path, "zarr2", voxels_of("u2", (9, 20, 20)))
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1)
    layout = Layout(chunks=(8, 8, 8))
    digest = convert(source, tmp_path / "whole/v.zarr/volumes/raw", layout=layout)
    to = tmp_path / "stopped/v.zarr/volumes/raw"
    places = {"create_volume": module, "fitted": blocks, "write_text": blocks, "rename_array": module, "remove": module}
    for name, place in places.items():
        real = getattr(place, name)
        for stop in itertools.count(1):
            calls = itertools.count(1)

            def stopping(*args: Any, real: Any = real, calls: Any = calls, stop: int = stop, **more: Any) -> Any:
                if next(calls) == stop:
                    raise KeyboardInterrupt
                return real(*args, **more)

            with monkeypatch.context() as patched:
                patched.setattr(place, name, stopping)
                try:
                    assert convert(source, to, layout=layout) == digest
                    break
                except KeyboardInterrupt:
                    pass
        assert files_in(to.parents[1]) == files_in(tmp_path / "whole/v.zarr"), name


@pytest.mark.parametrize("name", ["v.zarr/volumes/raw", "v.zarr/raw", "v.n5/raw", "v.precomputed/8_8_8"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_kill_at_any_rename_changes_no_byte(tmp_path: Path, name: str, zarr_format: Any) -> None:
    """Metadata are written in several steps, each by a rename: none but the last makes an array to go on in."""
    source = stored(tmp_path, "zarr2", voxels_of("u2", (9, 20, 20)), further="kept")
    layout = Layout(chunks=(8, 8, 8), zarr_format=zarr_format)
    convert(source, tmp_path / "whole" / name, layout=layout)
    whole = files_in(tmp_path / "whole" / Path(name).parts[0])
    for number in itertools.count():
        to = tmp_path / str(number) / name
        try:
            with killed_at_rename(number):
                convert(source, to, layout=layout)
            break
        except Killed:
            convert(source, to, layout=layout)
        found = files_in(tmp_path / str(number) / Path(name).parts[0])
        # of a group, which another run may write at the same time
        found = {file: content for file, content in found.items() if not file.endswith(".partial")}
        assert found.keys() == whole.keys(), number
        assert [file for file in whole if found[file] != whole[file]] == [], number
    assert number > 10


@pytest.mark.parametrize("file", ["zarr.1a2b.partial", "..emsuite.1a2b3c4d.part", ".attributes.json.1a2b3c4d.part"])
@pytest.mark.parametrize("name", ["v.zarr/raw", "v.n5/raw"])
def test_what_a_kill_left_of_metadata_is_no_users_array(
    tmp_path: Path, name: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, to = stored(tmp_path, "zarr2", voxels_of("u2", (9, 20, 20))), tmp_path / name

    def dying(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(module, "mark", dying)
        patched.setattr("emsuite.common.outputs._mark_stopped", dying)
        with pytest.raises(Killed):
            convert(source, to)
    (to.with_name("raw_unfinished") / file).write_text("{")
    convert(source, to)
    assert np.array_equal(open_volume(to).read(), open_volume(source).read())
    assert not list(tmp_path.rglob(file))


def test_an_array_of_a_users_own_beside_the_copy_is_not_removed(tmp_path: Path) -> None:
    source = stored(tmp_path, "zarr2", voxels_of("u2", (9, 20, 20)))
    own = create_volume(tmp_path / "to.zarr/volumes/raw_levels/mine", (8, 8, 8), np.uint8, (8, 8, 8), (0, 0, 0))
    for _ in range(2):
        with pytest.raises(BadInput, match="raw_levels: exists but this suite did not write it"):
            convert(source, tmp_path / "to.zarr/volumes/raw")
    assert own.path.exists()
    assert not (tmp_path / "to.zarr/volumes/raw").exists()


def test_a_source_edited_in_files_of_the_same_size_is_copied_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=2)
    array = group.create_array("raw", shape=(9, 8, 8), dtype="u1", chunks=(8, 8, 8), compressors=None)
    array.attrs.update(resolution=[8, 8, 8])
    array[...] = 1
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1)
    with monkeypatch.context() as patched:
        patched.setattr(module, "rename_array", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            convert(tmp_path / "s.zarr/raw", tmp_path / "to.zarr/raw")
    array[...] = 2
    convert(tmp_path / "s.zarr/raw", tmp_path / "to.zarr/raw")
    assert (open_volume(tmp_path / "to.zarr/raw").read() == 2).all()


def test_own_arrays_in_the_place_of_a_copy_stay(tmp_path: Path) -> None:
    own, source, to = (tmp_path / f"{name}.zarr/volumes/raw" for name in ("own", "source", "to"))
    for path, value in ((source, 1), (own, 77)):
        write_array(path, np.full((8, 8, 8), value, np.uint8) + np.arange(8, dtype=np.uint8) * (value > 1))
    convert(source, to)
    convert(source, to, roi=":,:,0:16")
    shutil.rmtree(to.parents[1])
    shutil.copytree(own.parents[1], to.parents[1])
    with pytest.raises(BadInput, match="is no copy that this suite made"):
        convert(source, to)
    assert open_volume(to).read()[0, 0, 0] == 77


@pytest.mark.parametrize("to", ["to.h5/volumes/raw", "to.n5/volumes/raw", "to.zarr/volumes/raw"])
def test_a_copy_that_was_edited_in_files_of_the_same_size_stays(tmp_path: Path, to: str) -> None:
    source = tmp_path / "source.zarr/raw"
    write_array(source, np.random.default_rng(0).integers(0, 255, (8, 8, 8)).astype(np.uint8))  # as it does not shrink
    copy = partial(convert, source, tmp_path / to)
    digest = copy()
    assert copy(roi=":,:,0:32") != digest
    touched = [file for file in (tmp_path / to.split("/")[0], tmp_path / to) if file.exists()]
    for file in (file for top in touched for file in ([top] if top.is_file() else top.rglob("*"))):
        os.utime(file)  # as a plain copy does
    assert copy() == digest
    sizes = [file.stat().st_size for file in (tmp_path / to.split("/")[0]).rglob("*")]
    edit(tmp_path / to)
    assert [file.stat().st_size for file in (tmp_path / to.split("/")[0]).rglob("*")] == sizes
    for again in (copy, partial(copy, roi=":,:,0:32")):
        with pytest.raises(BadInput, match="has other voxels than this suite wrote"):
            again()
    assert open_volume(tmp_path / to).read()[7, 7, 7] == 77


def edit(path: Path) -> None:
    """Change a voxel with another program; files keep their sizes."""
    file = path.parents[1]
    if file.suffix == ".h5":
        with h5py.File(file, "r+") as opened:
            opened["volumes/raw"][7, 7, 7] = 77
        return
    voxels = open_volume(path).read()
    voxels[7, 7, 7] = 77
    open_volume(path, "r+").array[...] = voxels


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Any, str]]:
    """An array of ones, and its address on a server of files."""
    group = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=2)
    array = group.create_array("raw", shape=(17, 8, 8), dtype="u1", chunks=(8, 8, 8), compressors=None)
    array.attrs.update(resolution=[8, 8, 8])
    array[...] = 1

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield array, f"http://127.0.0.1:{server.server_port}/s.zarr/raw"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("stopped", [True, False])
def test_a_source_on_a_server_that_changes_is_copied_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: tuple[Any, str], stopped: bool
) -> None:
    array, url = served
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1)
    real, calls = blocks.fitted, itertools.count(1)

    def changing(*args: Any) -> np.ndarray:
        if next(calls) == 2:
            array[...] = 2
            if stopped:
                raise KeyboardInterrupt
        return real(*args)

    to, layout = tmp_path / "to.zarr/raw", Layout(chunks=(8, 8, 8))
    with monkeypatch.context() as patched:
        patched.setattr(blocks, "fitted", changing)
        with pytest.raises(KeyboardInterrupt if stopped else BadInput):
            convert(Path(url), to, layout=layout)
    if stopped:
        with pytest.raises(BadInput, match=r"s\.zarr/raw: was replaced or edited while it was copied, or since"):
            convert(Path(url), to, layout=layout)
    assert not to.exists()
    convert(Path(url), to, layout=layout)
    assert (open_volume(to).read() == 2).all()


def test_a_users_array_of_the_name_of_an_unfinished_copy_stays(tmp_path: Path) -> None:
    source, own = tmp_path / "from.zarr/volumes/raw", tmp_path / "to.zarr/volumes/raw_unfinished"
    for path in (source, own):
        volume = create_volume(path, (8, 8, 8), np.uint8, (8, 8, 8), (0, 0, 0))
        volume.write(volume.roi, np.full((8, 8, 8), 7, np.uint8))
    with pytest.raises(BadInput, match="raw_unfinished: exists but this suite did not write it"):
        convert(source, tmp_path / "to.zarr/volumes/raw")
    assert (open_volume(own).read() == 7).all()
    with pytest.raises(BadInput, match=r"x: lies below the array .*raw_unfinished, expected a name in a group"):
        convert(source, own / "x")


def test_names_of_coarser_levels_are_refused(tmp_path: Path) -> None:
    write_array(tmp_path / "s.zarr/raw", np.ones((8, 8, 8), np.uint8))
    for name in ("raw_levels", "raw_levels/1"):
        with pytest.raises(BadInput, match="names that end in _levels are those of coarser levels"):
            convert(tmp_path / "s.zarr/raw", tmp_path / "to.zarr" / name)
    assert not (tmp_path / "to.zarr").exists()


def test_a_dot_in_a_name_is_no_group(tmp_path: Path) -> None:
    write_array(tmp_path / "s.zarr/raw", np.ones((8, 8, 8), np.uint8))
    for name, region in (("a/b", ":,:,0:8"), ("a.b", None), ("a/b", ":,:,0:8")):
        convert(tmp_path / "s.zarr/raw", tmp_path / "to.zarr" / name, roi=region)
    assert {path.name for path in tmp_path.glob("to*.json")} == {
        "to.zarr.a.b.manifest.json",
        "to.zarr.a%2Eb.manifest.json",
    }
