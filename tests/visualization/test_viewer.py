"""Volumes as neuroglancer layers, and the local server; no browser here (see test_view_browser)."""

import io
import json
import math
import os
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import neuroglancer
import numpy as np
import psutil
import pytest
from neuroglancer.local_volume import MeshesNotSupportedForVolume

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Coordinate
from emsuite.io.volume import Volume
from emsuite.visualization.layers import Kind, Layer, kind_of, neuroglancer_layer
from emsuite.visualization.viewer import open_viewer, parse_position, viewer_state


def volume(array: Any, voxel_size: tuple[int, ...] = (40, 4, 4), offset: tuple[int, ...] = (0, 0, 0)) -> Volume:
    return Volume(Path("somewhere.zarr/array"), array, Coordinate(voxel_size), Coordinate(offset))


def layer(kind: Kind, array: Any, name: str = "it", **place: Any) -> Layer:
    return Layer(name, volume(array, **place), kind)


class Counted:
    """An array far larger than memory, all sevens, that counts the bytes asked of it."""

    def __init__(self, shape: tuple[int, ...], dtype: str):
        self.shape, self.dtype, self.ndim, self.bytes_read = shape, np.dtype(dtype), len(shape), 0

    def __getitem__(self, index: Any) -> np.ndarray:
        spans = [range(n) for n in self.shape]
        if index is not ... and index[0] is ...:
            index = (*[slice(None)] * (len(spans) - len(index) + 1), *index[1:])
        shape = [len(span[i]) for span, i in zip(spans, index, strict=True)]
        self.bytes_read += math.prod(shape) * self.dtype.itemsize
        assert self.bytes_read < 2**28, "far too much"
        return np.full(shape, 7, self.dtype)


@pytest.fixture
def server() -> Iterator[None]:
    yield
    neuroglancer.stop()


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "kind"),
    [
        ("raw", (4, 4, 4), "uint8", "image"),
        ("raw", (4, 4, 4), "float32", "image"),
        ("raw_clahe", (4, 4, 4), "uint32", "image"),
        ("labels/neuron_ids", (4, 4, 4), "uint64", "segmentation"),
        ("labels/membranes", (4, 4, 4), "uint8", "segmentation"),
        ("labels", (4, 4, 4), "uint64", "segmentation"),
        ("fragments", (4, 4, 4), "uint16", "segmentation"),
        ("something", (4, 4, 4), "int64", "segmentation"),
        ("labels/labels_mask", (4, 4, 4), "uint8", "mask"),
        ("labels/unlabelled", (4, 4, 4), "bool", "mask"),
        ("targets/affs", (12, 4, 4, 4), "float32", "affinities"),
        ("affs", (3, 4, 4, 4), "uint8", "affinities"),
        ("lsds", (10, 4, 4, 4), "uint8", "descriptors"),
        ("lsds", (7, 4, 4, 4), "uint8", "image"),
        ("weights/lsds", (10, 4, 4, 4), "float32", "image"),
        ("predictions/contour", (2, 4, 4, 4), "float32", "image"),
        ("distance", (4, 4, 4), "float32", "image"),
    ],
)
def test_kind_is_told_by_name_type_and_channels(name: str, shape: tuple[int, ...], dtype: str, kind: str) -> None:
    assert kind_of(name, volume(np.zeros(shape, dtype))) == kind


@pytest.mark.parametrize(
    ("name", "channels", "attributes", "kind"),
    [
        ("prediction", 12, {"neighborhood": [[-1, 0, 0]] * 12}, "affinities"),
        ("lsds", 10, {"neighborhood": [[-1, 0, 0]] * 10}, "affinities"),
        ("prediction", 10, {"kind": "descriptors"}, "descriptors"),
        ("affs", 12, {"kind": "image", "neighborhood": [[-1, 0, 0]] * 12}, "image"),
        ("affs", 12, {"kind": "of another program"}, "affinities"),
        ("affs", 12, {"kind": np.array([1, 2])}, "affinities"),
    ],
)
def test_attributes_tell_the_kind_before_the_name(name: str, channels: int, attributes: dict, kind: str) -> None:
    array = np.zeros((channels, 2, 2, 2), np.uint8)
    assert kind_of(name, replace(volume(array), attributes=attributes)) == kind


def test_layers_are_of_neuroglancers_kinds() -> None:
    ids, grays = np.zeros((4, 4, 4), "u8"), np.zeros((4, 4, 4), "u1")
    assert isinstance(neuroglancer_layer(layer("segmentation", ids)), neuroglancer.SegmentationLayer)
    raw = neuroglancer_layer(layer("image", grays))
    assert isinstance(raw, neuroglancer.ImageLayer)
    assert "emitGrayscale" in raw.shader
    assert "range=[0, 255]" in raw.shader
    mask = neuroglancer_layer(layer("mask", grays))
    assert isinstance(mask, neuroglancer.ImageLayer)
    assert mask.opacity < 0.5
    affinities = neuroglancer_layer(layer("affinities", np.zeros((12, 4, 4, 4), "f4"))).shader
    assert "#uicontrol int triple slider(min=0, max=3, default=0)" in affinities
    assert "if (triple == 3) emitRGB(vec3(contrast(getDataValue(9)), contrast(getDataValue(10))" in affinities
    assert "slider" not in neuroglancer_layer(layer("affinities", np.zeros((3, 4, 4, 4), "u1"))).shader
    descriptors = neuroglancer_layer(layer("descriptors", np.zeros((10, 4, 4, 4), "u1"))).shader
    assert "if (descriptor == 3) emitGrayscale(contrast(getDataValue(9)))" in descriptors


@pytest.mark.parametrize(
    ("kind", "shape", "dtype"),
    [
        ("segmentation", (4, 4, 4), "float32"),
        ("segmentation", (3, 4, 4, 4), "uint64"),
        ("affinities", (4, 4, 4), "uint8"),
        ("affinities", (3, 4, 4, 4), "int64"),
        ("descriptors", (9, 4, 4, 4), "uint8"),
        ("mask", (1, 4, 4, 4), "uint8"),
        ("image", (4, 4, 4), "complex64"),
    ],
)
def test_what_a_kind_cannot_show_is_refused(kind: Kind, shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(BadInput, match=rf"array: {dtype} of shape .* cannot be shown as {kind}, expected "):
        layer(kind, np.zeros(shape, dtype))


def test_a_voxel_of_known_nm_lies_there_also_off_the_grid() -> None:
    """Neuroglancer shows voxel i of a source at `matrix @ (i, 1)`, in units of the layer's dimensions."""
    layers = [
        layer("image", np.zeros((10, 20, 30), "u1"), "raw"),
        layer("affinities", np.zeros((3, 4, 5, 6), "u1"), "affs", voxel_size=(40, 8, 8), offset=(60, 12, 3)),
    ]
    state = json.loads(json.dumps(viewer_state([layers]).to_json(), default=lambda _: "python://volume"))
    assert state["dimensions"] == {"z": [40e-9, "m"], "y": [4e-9, "m"], "x": [4e-9, "m"]}
    assert state["displayDimensions"] == ["x", "y", "z"]
    assert state["position"] == [5, 10, 15]
    transform = state["layers"][1]["source"][0]["transform"]
    scales = transform["outputDimensions"]
    assert list(scales) == ["c^", "z", "y", "x"]
    assert scales["c^"] == [1, ""]
    begin_of_voxel = np.array(transform["matrix"]) @ [0, 1, 2, 3, 1]
    metres = [scales[axis][0] * n for axis, n in zip("zyx", begin_of_voxel[1:], strict=True)]
    assert metres == pytest.approx([100e-9, 28e-9, 27e-9])


def test_a_position_in_nm_is_looked_at() -> None:
    layers = [layer("image", np.zeros((10, 20, 20), np.uint8), offset=(400, 0, 0))]
    assert viewer_state([layers]).position.tolist() == [15, 10, 10]
    assert viewer_state([layers], parse_position("420,10,7")).position.tolist() == [10.5, 2.5, 1.75]
    flat = layer("image", np.zeros((20, 20), np.uint8), voxel_size=(4, 4), offset=(0, 0))
    with pytest.raises(BadInput, match="has 2 axes, expected the three that a position is in"):
        viewer_state([[flat]], (1, 2, 3))


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "1,2,x", "1,2,nan"])
def test_a_position_is_three_numbers(text: str) -> None:
    with pytest.raises(BadInput, match=rf"--position {text}: expected three numbers in nm as z,y,x"):
        parse_position(text)


def test_two_dimensional_arrays_are_shown_flat() -> None:
    place = {"voxel_size": (4, 4), "offset": (2, 0)}
    state = viewer_state(
        [
            [
                layer("image", np.zeros((20, 30), "u1"), **place),
                layer("descriptors", np.zeros((6, 20, 30), "u1"), "l", **place),
            ]
        ]
    ).to_json()
    assert state["layout"] == "xy"
    assert state["displayDimensions"] == ["x", "y"]
    assert state["position"] == [10.5, 15]


def test_only_what_does_not_cover_another_is_visible_at_first() -> None:
    grays, ids, affs = np.zeros((4, 4, 4), "u1"), np.zeros((4, 4, 4), "u8"), np.zeros((3, 4, 4, 4), "u1")
    layers = [
        layer("image", grays, "raw"),
        layer("affinities", affs, "affs"),
        layer("segmentation", ids, "segmentation"),
        layer("segmentation", ids, "fragments"),
        layer("mask", grays, "mask"),
        layer("image", grays, "raw elsewhere", offset=(400, 0, 0)),
    ]
    assert [shown.visible for shown in viewer_state([layers]).layers] == [True, False, True, False, False, True]
    columns = viewer_state([layers[:1], layers[1:2]])
    assert [shown.visible for shown in columns.layers] == [True, True]
    assert [view["layers"] for view in columns.to_json()["layout"]["children"]] == [["raw"], ["affs"]]


@pytest.mark.parametrize(("kind", "channels", "dtype"), [("image", (), "uint16"), ("segmentation", (), "uint64"),
                                                         ("descriptors", (10,), "float32")])  # fmt: skip
def test_nothing_but_the_piece_asked_for_is_read(kind: Kind, channels: tuple[int, ...], dtype: str) -> None:
    array = Counted((*channels, 100_000, 100_000, 100_000), dtype)
    source = neuroglancer_layer(layer(kind, array)).source[0].url
    of_the_contrast = array.bytes_read
    assert of_the_contrast <= 48**3 * array.dtype.itemsize
    begin = np.array([*[0] * len(channels), 512, 1024, 2048])
    end = np.array([*channels, 544, 1056, 2080])
    ones = ",".join(["1"] * len(begin))
    data, _ = source.get_encoded_subvolume("npz", begin, end, ones)
    assert array.bytes_read - of_the_contrast == math.prod(channels) * 32**3 * array.dtype.itemsize
    piece = np.load(io.BytesIO(zlib.decompress(data)))
    assert piece.shape == (*channels, 32, 32, 32)
    assert (piece == 7).all()
    with pytest.raises(ValueError, match="downsampling"):
        source.get_encoded_subvolume("npz", begin // 4, end // 4, ",".join(["1"] * len(channels) + ["4"] * 3))


def test_meshes_of_large_volumes_are_refused_without_reading_them() -> None:
    array = Counted((1000, 1000, 1000), "uint64")
    with pytest.raises(MeshesNotSupportedForVolume):
        neuroglancer_layer(layer("segmentation", array)).source[0].url.get_object_mesh(7)
    assert array.bytes_read == 0


def test_a_small_segmentation_has_meshes() -> None:
    ids = np.zeros((20, 20, 20), ">i8")
    ids[5:15, 5:15, 5:15] = 7
    source = neuroglancer_layer(layer("segmentation", ids)).source[0].url
    assert len(source.get_object_mesh(7)) > 1000


@pytest.mark.parametrize(
    ("kind", "stored", "shown"),
    [
        ("image", "float64", "float32"),
        ("image", "float16", "float32"),
        ("image", ">u2", "uint16"),
        ("image", "int64", "float32"),
        ("mask", "bool", "uint8"),
        ("segmentation", "int64", "uint64"),
        ("segmentation", ">i4", "uint32"),
    ],
)
def test_types_that_neuroglancer_lacks_are_shown_in_another(kind: Kind, stored: str, shown: str) -> None:
    source = neuroglancer_layer(layer(kind, np.ones((4, 4, 4), stored))).source[0].url
    assert source.data_type == shown
    assert np.asarray(source.data[0:2, 0:2, 0:2]).tolist() == np.ones((2, 2, 2)).tolist()


def test_contrast_of_floats_is_that_of_a_sample() -> None:
    raw = np.linspace(-1, 1, 1000, dtype="f4").reshape(10, 10, 10)
    raw[5, 5, 5] = np.nan
    assert "contrast(range=[-1, 1])" in neuroglancer_layer(layer("image", raw)).shader
    assert "contrast(range=[0, 1])" in neuroglancer_layer(layer("image", np.zeros((4, 4, 4), "f4"))).shader
    assert "contrast(range=[0, 1])" in neuroglancer_layer(layer("image", np.full((4, 4, 4), np.nan, "f4"))).shader


def test_only_loopback_is_listened_on(server: None) -> None:
    viewer = open_viewer([[layer("image", np.zeros((4, 4, 4), "u1"), "raw")]])
    listening = [c.laddr for c in psutil.Process(os.getpid()).net_connections("all") if c.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert viewer.get_viewer_url().startswith("http://127.0.0.1:")


def test_the_client_and_the_voxels_come_from_the_server_itself(server: None) -> None:
    array = np.arange(64, dtype="u1").reshape(4, 4, 4)
    viewer = open_viewer([[layer("image", array, "raw")]])
    with urllib.request.urlopen(viewer.get_viewer_url(), timeout=60) as page:
        assert b"<script" in page.read()
    server_url = viewer.get_viewer_url().split("/v/")[0]
    key = viewer.state.layers["raw"].source[0].url.removeprefix("python://volume/")
    with urllib.request.urlopen(f"{server_url}/neuroglancer/npz/{key}/1,1,1/1,2,3/2,3,4", timeout=60) as answer:
        piece = np.load(io.BytesIO(zlib.decompress(answer.read())))
    assert piece.tolist() == [[[array[1, 2, 3]]]]


@pytest.mark.parametrize(("address", "complaint"), [("", "would listen on every address"),
                                                    ("203.0.113.7", "cannot listen there")])  # fmt: skip
def test_an_address_not_of_this_machine_is_refused(server: None, address: str, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        open_viewer([[layer("image", np.zeros((4, 4, 4), "u1"))]], address)


def test_another_address_is_listened_on_when_asked(server: None) -> None:
    viewer = open_viewer([[layer("image", np.zeros((4, 4, 4), "u1"), "raw")]], "127.0.0.2")
    assert viewer.get_viewer_url().startswith("http://127.0.0.2:")
