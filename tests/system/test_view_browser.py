"""The viewers as a person sees them: neuroglancer in a real browser that has no network, judged by its pixels."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import neuroglancer
import numpy as np
import pytest

from emsuite.common.geometry import Coordinate
from emsuite.io.volume import Volume
from emsuite.visualization.contents import data_layers
from emsuite.visualization.layers import Kind, Layer
from emsuite.visualization.viewer import open_viewer

pytestmark = pytest.mark.slow

_SIZE = 160
_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]
_NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


def need(there: bool, what: str) -> None:
    if not there and os.environ.get("EMSUITE_REQUIRE_PARTS") == "1":
        pytest.fail(f"required here, but missing: {what}")
    if not there:
        pytest.skip(f"missing: {what}")


class Screen:
    """One browser page that shows a viewer; `pixels` is what it shows after a change of the viewer's state."""

    def __init__(self, page: Any):
        self.page, self.problems, self.looks = page, [], itertools.count()
        page.on("request", lambda request: self._judge(request.url))
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def show(self, viewer: neuroglancer.Viewer) -> None:
        self.viewer = viewer
        self.page.goto(viewer.get_viewer_url())

    def pixels(self, change: Callable[[Any], None] = lambda state: None) -> np.ndarray:
        """RGB of the data panels alone, (height, width, 3) uint8."""
        with self.viewer.txn() as state:
            state.show_axis_lines = state.show_scale_bar = state.show_default_annotations = False
            state.title = f"look {next(self.looks)}"
            change(state)
        self.page.wait_for_function("t => document.title.startsWith(t + ' -')", arg=state.title)
        self.page.wait_for_function("window.viewer.isReady()")
        assert self.problems == []
        return self.viewer.screenshot(size=[_SIZE, _SIZE]).screenshot.image_pixels[..., :3]

    def _judge(self, url: str) -> None:
        if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).hostname != "127.0.0.1":
            self.problems.append(f"asks for {url}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    need(path is not None, "a browser (chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        need(False, "playwright")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=[*_FLAGS, _NO_NETWORK])
        yield chromium
        chromium.close()


@pytest.fixture
def screen(browser: Any) -> Iterator[Screen]:
    page = browser.new_page(viewport={"width": 400, "height": 400})
    page.set_default_timeout(120_000)
    yield Screen(page)
    page.close()
    neuroglancer.stop()


def layer(name: str, kind: Kind, array: np.ndarray, size: int = 8, offset: tuple[int, ...] = (0, 0, 0)) -> Layer:
    return Layer(name, Volume(Path("none.zarr"), array, Coordinate((size,) * 3), Coordinate(offset)), kind)


def centre(pixels: np.ndarray) -> list[int]:
    return pixels[_SIZE // 2, _SIZE // 2].tolist()


def only(*names: str, **controls: int) -> Callable[[Any], None]:
    """A change that leaves some layers visible and sets their shader controls."""

    def change(state: Any) -> None:
        for shown in state.layers:
            shown.visible = shown.name in names
            if shown.visible and controls:
                shown.layer.shader_controls = controls

    return change


def test_real_volume_is_gray_and_its_labels_are_colored(screen: Screen, fib25_slab: Path) -> None:
    screen.show(open_viewer([data_layers([fib25_slab])]))
    raw = screen.pixels(only("raw")).astype(int)
    assert np.ptp(raw, axis=-1).max() <= 2
    assert raw.std() > 15
    both = screen.pixels(only("raw", "labels/neuron_ids")).astype(int)
    assert (np.ptp(both, axis=-1) > 20).mean() > 0.3
    assert len(np.unique(both.reshape(-1, 3) // 64, axis=0)) > 8


def test_a_voxel_shows_at_its_nm_in_every_layer(screen: Screen) -> None:
    """One bright voxel, off the grid of nm, and around it a labelled voxel of twice the size from another origin."""
    raw, ids = np.zeros((8, 9, 10), "u1"), np.zeros((6, 6, 6), "u8")
    raw[3, 4, 5] = 255
    ids[2, 1, 3] = 2**64 - 3
    raw_begin, ids_begin = (5, 13, 21), (-5, 26, 5)
    screen.show(
        open_viewer([[layer("raw", "image", raw, 8, raw_begin), layer("ids", "segmentation", ids, 16, ids_begin)]])
    )
    nm = np.array(raw_begin) + 8 * (np.array([3, 4, 5]) + 0.5)

    def look(name: str, place: np.ndarray, moved: tuple[int, ...] = (0, 0, 0)) -> list[int]:
        def change(state: Any) -> None:
            only(name)(state)
            state.position, state.cross_section_scale, state.layout = list((place + moved) / 8), 0.05, "xy"

        return centre(screen.pixels(change))

    assert look("raw", nm) == [255, 255, 255]
    assert look("raw", nm, (8, 0, 0)) == [0, 0, 0]
    assert look("raw", nm, (0, 0, -8)) == [0, 0, 0]
    of_the_id = np.array(ids_begin) + 16 * (np.array([2, 1, 3]) + 0.5)
    assert np.ptp(look("ids", of_the_id)) > 10
    assert np.ptp(look("ids", of_the_id, (0, 16, 0))) <= 1


def test_shaders_show_the_channels_that_their_slider_names(screen: Screen) -> None:
    def constant(*values: int) -> np.ndarray:
        return np.broadcast_to(np.array(values, "u1")[:, None, None, None], (len(values), 8, 8, 8))

    mask = np.ones((8, 8, 8), "u1")
    mask[:, :, :4] = 0
    columns = [[
        layer("raw", "image", np.full((8, 8, 8), 100, "u1")),
        layer("lsds", "descriptors", constant(0, 25, 50, 75, 100, 125, 150, 175, 200, 225)),
        layer("affs", "affinities", (constant(0, 51, 102, 153, 204, 255) / 255).astype("f4")),
        layer("mask", "mask", mask),
    ]]  # fmt: skip
    screen.show(open_viewer(columns))

    def flat(state: Any) -> None:
        state.layout, state.cross_section_scale = "xy", 0.02

    assert centre(screen.pixels(flat)) == [100, 100, 100]
    for number, color in enumerate([[0, 25, 50], [75, 100, 125], [150, 175, 200], [225, 225, 225]]):
        assert centre(screen.pixels(only("lsds", descriptor=number))) == pytest.approx(color, abs=1)
    for number, color in enumerate([[0, 51, 102], [153, 204, 255]]):
        assert centre(screen.pixels(only("affs", triple=number))) == pytest.approx(color, abs=1)
    masked = screen.pixels(only("raw", "mask")).astype(int)[_SIZE // 2]
    assert masked[10].tolist() == [100, 100, 100]
    assert masked[-10, 0] > masked[-10, 1] + 30 > 60
