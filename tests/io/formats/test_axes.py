"""Units and axes that say something else than nm and z, y, x: converted and put in order, else one line."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate
from emsuite.io.levels import is_coarser_level, levels_of
from emsuite.io.volume import open_volume

VOXELS = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(4, 6, 5)
SIZE = {"voxel_size": [40, 8, 4]}


def put(
    folder: Path, attributes: dict[str, Any], groups: dict[str, dict[str, Any]] | None = None, **options: Any
) -> Path:
    """An array `a/b/raw`, with attributes of its own and of groups above it; "" is the container."""
    root = zarr.open_group(folder / "v.zarr", mode="w", zarr_format=3)
    array = root.create_array("a/b/raw", data=options.pop("voxels", VOXELS), **options)
    array.attrs.update(attributes)
    for name, values in (groups or {}).items():
        group = root[name] if name else root
        assert isinstance(group, zarr.Group)
        group.attrs.update(values)
    return folder / "v.zarr/a/b/raw"


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as error:
        open_volume(path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


def grid(path: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    volume = open_volume(path)
    return tuple(volume.voxel_size), tuple(volume.offset)


# ---- units


@pytest.mark.parametrize(
    ("attributes", "size", "offset"),
    [
        ({"voxel_size": [40, 8, 4], "units": ["nm"] * 3}, (40, 8, 4), (0, 0, 0)),
        ({"voxel_size": [40, 8, 4], "units": "nanometer"}, (40, 8, 4), (0, 0, 0)),
        ({"voxel_size": [40, 8, 4], "unit": "Nanometres"}, (40, 8, 4), (0, 0, 0)),
        ({"voxel_size": [40, 8, 4], "units": [""] * 3}, (40, 8, 4), (0, 0, 0)),
        (
            {"voxel_size": [0.04, 0.008, 0.004], "units": ["um"] * 3, "offset": [0.4, 0, -0.004]},
            (40, 8, 4),
            (400, 0, -4),
        ),
        ({"resolution": [0.04, 0.008, 0.004], "unit": "µm"}, (40, 8, 4), (0, 0, 0)),
        ({"resolution": [0.04, 0.008, 0.004], "unit": ["micrometer"]}, (40, 8, 4), (0, 0, 0)),
        ({"resolution": [0.1 + 0.2, 8, 4], "units": ["microns", "nm", "nm"]}, (300, 8, 4), (0, 0, 0)),
        ({"resolution": [400, 80, 40], "units": "Å"}, (40, 8, 4), (0, 0, 0)),
        ({"resolution": [1e-8, 1e-9, 2e-9], "units": "m"}, (10, 1, 2), (0, 0, 0)),
        ({"resolution": [40000, 8000, 4000], "units": "picometers"}, (40, 8, 4), (0, 0, 0)),
        ({"voxel_size": [1, 1, 1], "units": ["um"] * 3}, (1000, 1000, 1000), (0, 0, 0)),
        ({"element_size_um": [0.04, 0.008, 0.004]}, (40, 8, 4), (0, 0, 0)),
        ({"pixelResolution": {"dimensions": [4, 8, 40], "unit": "nm"}}, (40, 8, 4), (0, 0, 0)),
        ({"pixelResolution": {"dimensions": [0.004, 0.008, 0.04], "unit": "um"}}, (40, 8, 4), (0, 0, 0)),
        ({**SIZE, "pixelResolution": [4, 8, 40], "element_size_um": [0.04, 0.008, 0.004]}, (40, 8, 4), (0, 0, 0)),
        (
            {"transform": {"axes": list("zyx"), "scale": [40, 8, 4], "translate": [0, 8, 0], "units": ["nm"] * 3}},
            (40, 8, 4),
            (0, 8, 0),
        ),
    ],
)
def test_units_of_length_are_converted(
    tmp_path: Path, attributes: dict[str, Any], size: tuple[int, ...], offset: tuple[int, ...]
) -> None:
    assert grid(put(tmp_path, attributes)) == (size, offset)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"voxel_size": [0.0081, 0.008, 0.008], "units": "um"}, (8.1, 8, 8)),
        ({"voxel_size": [8000, 8000, 8500], "units": "pm"}, (8, 8, 8.5)),
        ({"voxel_size": [294, 46, 46], "units": "angstrom"}, (29.4, 4.6, 4.6)),
        ({"element_size_um": [0.05, 0.0046, 0.0046]}, (50, 4.6, 4.6)),
        ({"element_size_um": np.array([0.05, 0.0046, 0.0046], np.float32)}, (50, 4.6, 4.6)),
    ],
)
def test_units_convert_to_parts_of_a_nanometre(
    tmp_path: Path, attributes: dict[str, Any], size: tuple[float, ...]
) -> None:
    plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in attributes.items()}
    assert grid(put(tmp_path, plain))[0] == Coordinate(size)


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ({**SIZE, "units": ["pixel"] * 3}, "'units' says the unit is 'pixel', expected nm"),
        ({**SIZE, "units": ["nm", "nm", "s"]}, "'units' says the unit is 's'"),
        ({**SIZE, "unit": "voxels"}, "'unit' says the unit is 'voxels'"),
        ({**SIZE, "unit": "Mm"}, "'unit' says the unit is 'Mm'"),
        ({**SIZE, "units": ["nm", "nm"]}, "'units' holds ['nm', 'nm'], expected one unit, or one per axis"),
        ({**SIZE, "units": 5}, "'units' holds 5, expected a unit of length"),
        ({**SIZE, "units": {"z": "nm"}}, "'units' holds {'z': 'nm'}, expected a unit of length"),
        ({**SIZE, "element_size_um": [0.04, 0.004, 0.004]}, "voxels of [40, 8, 4] nm, but 'element_size_um' says"),
        ({**SIZE, "pixelResolution": {"dimensions": [4, 8, 40], "unit": "um"}}, "'pixelResolution' says [40000.0, "),
        ({**SIZE, "pixelResolution": {"dimensions": [40, 8, 4], "unit": "nm"}}, "'pixelResolution' says [4.0, 8.0, 40"),
        ({"pixelResolution": {"unit": "nm"}}, "'pixelResolution' holds None, expected nm per axis"),
        (
            {**SIZE, "transform": {"axes": list("zyx"), "scale": [4, 8, 4], "units": ["nm"] * 3}},
            "'transform' says [4.0",
        ),
    ],
)
def test_units_that_are_none_or_contradict_are_refused(
    tmp_path: Path, attributes: dict[str, Any], complaint: str
) -> None:
    assert complaint in refused(put(tmp_path, attributes))


@pytest.mark.parametrize("group", ["", "a", "a/b"])
def test_groups_above_say_units_and_axes_too(tmp_path: Path, group: str) -> None:
    micrometres = {"voxel_size": [0.04, 0.008, 0.004]}
    assert grid(put(tmp_path, micrometres, {group: {"units": ["um"] * 3}}))[0] == (40, 8, 4)
    assert grid(put(tmp_path, {**SIZE, "units": "nm"}, {group: {"units": ["um"] * 3}}))[0] == (40, 8, 4), "its own"
    assert "of the group above says the unit is 'px'" in refused(put(tmp_path, SIZE, {group: {"units": "px"}}))
    for key in ("axis_names", "axes", "_ARRAY_DIMENSIONS"):
        assert grid(put(tmp_path, SIZE, {group: {key: ["x", "y", "z"]}}))[0] == (4, 8, 40)
        assert grid(put(tmp_path, SIZE, {group: {key: ["c", "z", "y", "x"]}}))[0] == (40, 8, 4)
    finest = {"pixelResolution": {"dimensions": [0.004, 0.004, 0.04], "unit": "um"}}
    assert grid(put(tmp_path, SIZE, {group: finest}))[0] == (40, 8, 4), "of the finest of several scales"
    wider = {"pixelResolution": {"dimensions": [4, 8, 40], "unit": "um"}}
    assert "'pixelResolution' of the group above says [40000" in refused(put(tmp_path, SIZE, {group: wider}))
    assert "'element_size_um' of the group above" in refused(put(tmp_path, SIZE, {group: {"element_size_um": [1] * 3}}))


# ---- axes


@pytest.mark.parametrize("key", ["axis_names", "axes", "_ARRAY_DIMENSIONS"])
@pytest.mark.parametrize(
    "names",
    [
        list("zyx"),
        list("ZYX"),
        "zyx",
        "z, y, x",
        [{"name": n, "type": "space"} for n in "zyx"],
        ["dim_0", "dim_1", "b"],
    ],
)
def test_axes_in_order_or_without_a_meaning_are_read(tmp_path: Path, key: str, names: Any) -> None:
    assert grid(put(tmp_path, {**SIZE, key: names}))[0] == (40, 8, 4)


@pytest.mark.parametrize("key", ["axis_names", "axes", "_ARRAY_DIMENSIONS"])
@pytest.mark.parametrize(
    "names",
    [list("xyz"), list("XYZ"), "xyz", "x y z", "x,y,z", [{"name": n} for n in "xyz"]],
)
def test_axes_in_another_order_are_transposed(tmp_path: Path, key: str, names: Any) -> None:
    path = put(tmp_path, {**SIZE, "offset": [400, 80, 0], key: names})
    assert grid(path) == ((4, 8, 40), (0, 80, 400))
    np.testing.assert_array_equal(open_volume(path).read(), VOXELS.T)


@pytest.mark.parametrize("key", ["axis_names", "axes", "_ARRAY_DIMENSIONS"])
@pytest.mark.parametrize("names", [list("zyxc"), list("tzyx"), ["y", "x"], list("zzx")])
def test_axes_that_the_array_has_not_are_refused(tmp_path: Path, key: str, names: Any) -> None:
    assert f"'{key}' says the axes are " in (line := refused(put(tmp_path, {**SIZE, key: names})))
    assert line.endswith("expected z, y, x (channels, if any, first)")


@pytest.mark.parametrize(("names", "good"), [(list("zyx"), True), (list("xyz"), False), ([None] * 3, True)])
def test_dimension_names_of_zarr_3(tmp_path: Path, names: list[str], good: bool) -> None:
    path = put(tmp_path, SIZE, dimension_names=names)
    if good:
        assert grid(path)[0] == (40, 8, 4)
    else:
        assert open_volume(path).shape == (5, 6, 4)


def test_channels_come_first_by_name(tmp_path: Path) -> None:
    four = {"voxels": VOXELS[None]}
    for names in (["c^", "z", "y", "x"], ["channel", "z", "y", "x"], ["", "z", "y", "x"], ["z", "y", "x"]):
        assert grid(put(tmp_path, {**SIZE, "axis_names": names, "units": ["", "nm", "nm", "nm"]}, **four))[0] == (
            40,
            8,
            4,
        )
    last = open_volume(put(tmp_path, {**SIZE, "axis_names": ["z", "y", "x", "c^"]}, voxels=VOXELS[..., None]))
    np.testing.assert_array_equal(last.read(), VOXELS[None])


def test_two_axes(tmp_path: Path) -> None:
    image = {"voxels": VOXELS[0]}
    assert grid(put(tmp_path, {"voxel_size": [8, 4], "axis_names": ["y", "x"], "units": "nm"}, **image))[0] == (8, 4)
    assert grid(put(tmp_path, {"voxel_size": [8, 4], "axis_names": ["x", "y"]}, **image))[0] == (4, 8)


def test_axistags_of_ilastik(tmp_path: Path) -> None:
    for order, size in (("zyx", (40, 8, 4)), ("xyz", (4, 8, 40))):
        tags = json.dumps({"axes": [{"key": key, "typeFlags": 2} for key in order]})
        assert grid(put(tmp_path, {**SIZE, "axistags": tags}))[0] == size


# ---- OME-Zarr


def image(order: str = "zyx", unit: str | None = "nanometer", path: str = "raw", **steps: Any) -> dict[str, Any]:
    axes = [{"name": name, "type": "space"} | ({"unit": unit} if unit else {}) for name in order]
    dataset = [{"type": kind, kind: values} for kind, values in steps.items()]
    return {"axes": axes, "datasets": [{"path": path, "coordinateTransformations": dataset}]}


@pytest.mark.parametrize("newer", [False, True])
def test_multiscales_say_voxel_size_and_offset(tmp_path: Path, newer: bool) -> None:
    def groups(**keys: Any) -> dict[str, Any]:
        content = {"multiscales": [image(**keys)]}
        return {"a/b": {"ome": content} if newer else content}

    scale = {"scale": [40, 8, 4]}
    assert grid(put(tmp_path, {}, groups(**scale)))[0] == (40, 8, 4)
    assert grid(put(tmp_path, {}, groups(**scale, translation=[80, -8, 4]))) == ((40, 8, 4), (80, -8, 4))
    micro = groups(unit="micrometer", scale=[0.04, 0.008, 0.004])
    assert grid(put(tmp_path, {}, micro))[0] == (40, 8, 4)
    assert grid(put(tmp_path, SIZE, micro))[0] == (40, 8, 4), "they agree"
    assert grid(put(tmp_path, SIZE, groups(path="other", scale=[1, 1, 1])))[0] == (40, 8, 4), "of another array"
    assert grid(put(tmp_path, SIZE, groups(unit=None, scale=[1, 1, 1])))[0] == (40, 8, 4), "says no unit"
    assert "no attribute 'resolution'" in refused(put(tmp_path, {}, groups(unit=None, **scale)))
    assert "'multiscales' of the group above says [4.0" in refused(put(tmp_path, SIZE, groups(scale=[4, 4, 4])))
    assert grid(put(tmp_path, {}, groups(scale=[8.5, 4, 4], translation=[4.25, 2, 0]))) == (
        Coordinate(8.5, 4, 4), Coordinate(4.25, 2, 0))  # fmt: skip
    assert grid(put(tmp_path, SIZE, groups(order="xyz", **scale)))[0] == (4, 8, 40)
    assert "the unit is 'parsec'" in refused(put(tmp_path, SIZE, groups(unit="parsec", **scale)))
    assert "2 numbers for 3 axes" in refused(put(tmp_path, SIZE, groups(scale=[4, 4])))
    assert "a transformation 'rotation'" in refused(put(tmp_path, SIZE, groups(rotation=[4, 4, 4])))


def test_multiscales_of_a_group_farther_above_and_a_scale_for_all(tmp_path: Path) -> None:
    above = image(path="b/raw", scale=[2, 2, 2])
    above["coordinateTransformations"] = [{"type": "scale", "scale": [20, 4, 2]}]
    assert grid(put(tmp_path, {}, {"a": {"multiscales": [above]}}))[0] == (40, 8, 4)


@pytest.mark.parametrize("odd", [5, "a", [5], [{"datasets": 5}], [{"datasets": [5], "axes": "xyz"}], {"a": 1}, None])
def test_multiscales_that_are_none_are_left_out(tmp_path: Path, odd: Any) -> None:
    for content in ({"multiscales": odd}, {"ome": odd}, {"ome": {"multiscales": odd}}):
        assert grid(put(tmp_path, SIZE, {"a/b": content}))[0] == (40, 8, 4)


# ---- HDF5


def test_hdf5_says_units_and_axes_too(tmp_path: Path) -> None:
    def stored(own: dict[str, Any], group: dict[str, Any] | None = None, labels: str = "") -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        with h5py.File(path, "w") as file:
            dataset = file.create_dataset("volumes/raw", data=VOXELS)
            dataset.attrs.update(own)
            file["volumes"].attrs.update(group or {})
            for axis, label in zip(dataset.dims, labels, strict=False):
                axis.label = label
        return path / "volumes/raw"

    assert grid(stored({"element_size_um": np.array([0.04, 0.008, 0.004], np.float32)}))[0] == (40, 8, 4)
    assert grid(stored({"resolution": np.array([40.0, 8, 4]), "units": b"nm"}, labels="zyx"))[0] == (40, 8, 4)
    assert grid(stored({"resolution": np.array([0.04, 0.008, 0.004]), "units": np.array([b"um"] * 3)}))[0] == (40, 8, 4)
    assert grid(stored(SIZE, labels="xyz"))[0] == (4, 8, 40)
    assert "the unit is 'px'" in refused(stored(SIZE, {"unit": "px"}))
    assert grid(stored(SIZE, {"axis_names": ["x", "y", "z"]}))[0] == (4, 8, 40)


def written_image(tmp_path: Path, *levels: tuple[str, int, list[Any]]) -> Path:
    """An image of OME-NGFF, its levels (path, voxels along x, transformations) in this order."""
    root = zarr.open_group(tmp_path / "i.ome.zarr", mode="w", zarr_format=2)
    for name, width, _ in levels:
        root.create_array(name, shape=(4, 6, width), dtype="u1")
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    datasets = [{"path": name, "coordinateTransformations": steps} for name, _, steps in levels]
    root.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    return tmp_path / "i.ome.zarr"


@pytest.mark.parametrize("steps", [[], [{"type": "identity"}], [{"type": "translation", "translation": [8, 0, 0]}]])
def test_an_image_without_a_scale_says_no_voxel_size(tmp_path: Path, steps: list[Any]) -> None:
    path = written_image(tmp_path, ("0", 8, steps)) / "0"
    with pytest.raises(BadInput, match="or the option --voxel-size"):
        open_volume(path)
    assert tuple(open_volume(path, voxel_size=(40, 4, 4)).voxel_size) == (40, 4, 4)


def test_the_finest_level_is_level_0_wherever_it_is_listed(tmp_path: Path) -> None:
    def steps(x: int, at: int) -> list[Any]:
        return [{"type": "scale", "scale": [8, 4, x]}, {"type": "translation", "translation": [0, 0, at]}]

    path = written_image(tmp_path, ("1", 4, steps(8, 2)), ("2", 2, steps(16, 6)), ("0", 8, steps(4, 0)))
    assert levels_of(path) == [path / "0", path / "1", path / "2"]
    assert open_volume(path).shape == (4, 6, 8)
    for name in "012":
        assert tuple(open_volume(path / name).offset) == (0, 0, 0)
    assert is_coarser_level(path / "1")
    assert not is_coarser_level(path / "0")
