#!/usr/bin/env python
"""Make a picture of the viewer: sections of raw under a segmentation, and meshes of its larger segments."""

import shutil
from pathlib import Path

import click
import neuroglancer
import numpy as np
from playwright.sync_api import sync_playwright

from emsuite.cli.command import stage
from emsuite.common.errors import RunFailed
from emsuite.common.files import atomic_path
from emsuite.visualization.contents import result_layers
from emsuite.visualization.viewer import open_viewer

_FLAGS = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@stage(
    example="""
python docs/images/viewer.py --raw V.zarr/volumes/raw --segmentation results/segmentation.zarr/segmentation
"""
)
@click.option("--raw", type=click.Path(path_type=Path), required=True, help="The raw volume.")
@click.option("--segmentation", type=click.Path(path_type=Path), required=True, help="The segmentation; a small one.")
@click.option("--segments", default=24, help="How many segments to show in 3-D: the largest but for the three largest.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).with_suffix(".png"))
def main(raw: Path, segmentation: Path, segments: int, out: Path) -> None:
    """Open the viewer in a browser without a screen (chromium) and save what it shows."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        raise RunFailed("no chromium on this machine, which takes the picture")
    layers = result_layers(None, {"raw": raw, "segmentation": segmentation})
    ids, counts = np.unique(layers[1].volume.read(), return_counts=True)
    by_size = ids[np.argsort(-counts)]
    viewer = open_viewer([layers])
    with viewer.txn() as state:
        state.layers["segmentation"].segments = [int(segment) for segment in by_size[by_size != 0][3 : 3 + segments]]
        state.layers["segmentation"].not_selected_alpha = 0.25
        state.projection_orientation = [0.25, 0.35, 0.05, 0.9]
        state.show_slices = state.show_axis_lines = False
        state.cross_section_scale *= 0.7
        state.layout = neuroglancer.row_layout(
            [neuroglancer.LayerGroupViewer(layers=["raw", "segmentation"], layout=view) for view in ("xy", "3d")]
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=_FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 640})
        page.goto(viewer.get_viewer_url())
        page.wait_for_function("window.viewer && window.viewer.isReady()", timeout=200_000)
        page.wait_for_timeout(1000)
        with atomic_path(out) as temporary:
            page.screenshot(path=temporary, type="png")
        browser.close()


if __name__ == "__main__":
    main()
