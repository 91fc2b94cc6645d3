"""Show volumes in neuroglancer: the arrangement of layers, and the local server.

The server is neuroglancer's own. It runs in this process, brings its client along, and so needs no network. It listens
on the loopback address unless another address is given.
"""

import math
import threading
from collections.abc import Sequence

import neuroglancer

from emsuite.common.errors import BadInput
from emsuite.common.geometry import json_numbers
from emsuite.visualization.layers import Layer, axis_names, coordinate_space, neuroglancer_layer

LOOPBACK = "127.0.0.1"
# A smaller volume is enlarged to about this many pixels. Of a larger one, about as many voxels are shown at first.
_PIXELS = 400


def parse_position(text: str) -> tuple[float, ...]:
    """Return the position that a text `z,y,x` in nm describes; raise BadInput for another text."""
    try:
        position = tuple(float(part) for part in text.split(","))
    except ValueError:
        position = ()
    if len(position) != 3 or not all(map(math.isfinite, position)):
        raise BadInput(f"--position {text}: expected three numbers in nm as z,y,x, as 1200,400,864")
    return position


def viewer_state(
    columns: Sequence[Sequence[Layer]], position: Sequence[float] | None = None
) -> neuroglancer.ViewerState:
    """Return the state of neuroglancer that shows layers.

    Masks are hidden at first, and so are layers that would cover an image, or a segmentation, in the same column.

    Args:
        columns: The layers of each view, from left to right. The voxels of the first layer are the units of positions.
        position: The centre of the views, nm, z y x; None: the centre of the first layer.

    Raises:
        BadInput: `position` has another number of axes than the first layer.
    """
    first = columns[0][0].volume
    if position is not None and len(position) != first.voxel_size.dims:
        raise BadInput(f"{first.path}: has {first.voxel_size.dims} axes, expected the three that a position is in")
    centre = position or json_numbers(first.roi.begin + first.roi.shape / 2)
    largest = float(max(first.roi.shape) / min(first.voxel_size))
    state = neuroglancer.ViewerState(
        dimensions=coordinate_space(first),
        display_dimensions=axis_names(first)[::-1],
        position=[float(nm / size) for nm, size in zip(centre, first.voxel_size, strict=True)],
        cross_section_scale=min(1.0, largest / _PIXELS),
        hide_cross_section_background_3d=True,
        projection_scale=1.6 * min(largest, _PIXELS),
    )
    for column in columns:
        shown: list[Layer] = []
        for layer in column:
            visible = layer.kind != "mask" and not any(_covers(layer, other) for other in shown)
            state.layers.append(name=layer.name, layer=neuroglancer_layer(layer), visible=visible)
            shown += [layer] * visible
    views = "4panel" if first.voxel_size.dims == 3 and len(columns) == 1 else "xy"
    state.layout = views
    if len(columns) > 1:
        state.layout = neuroglancer.row_layout(
            [neuroglancer.LayerGroupViewer(layers=[layer.name for layer in column], layout=views) for column in columns]
        )
    return state


def open_viewer(
    columns: Sequence[Sequence[Layer]], bind: str = LOOPBACK, position: Sequence[float] | None = None
) -> neuroglancer.Viewer:
    """Return a viewer of the layers; this process serves it as long as the object exists.

    Args:
        columns: See `viewer_state`.
        bind: The address to listen on. All viewers of a process share one server.
        position: See `viewer_state`.

    Raises:
        BadInput: The address cannot be used, or as `viewer_state`.
    """
    if not bind:
        raise BadInput("--bind: empty, which would listen on every address; expected one, as 127.0.0.1 or 0.0.0.0")
    state = viewer_state(columns, position)
    neuroglancer.set_server_bind_address(bind)
    try:
        viewer = neuroglancer.Viewer(allow_credentials=False)
    except (OSError, UnicodeError) as error:
        raise BadInput(f"--bind {bind}: cannot listen there: {error}; expected an address of this machine") from None
    viewer.set_state(state)
    return viewer


def serve(columns: Sequence[Sequence[Layer]], bind: str = LOOPBACK, position: Sequence[float] | None = None) -> None:
    """Show layers until Ctrl-C; print them and the address to open in a browser. Arguments as for `open_viewer`."""
    viewer = open_viewer(columns, bind, position)
    for layer in (layer for column in columns for layer in column):
        volume = layer.volume
        print(
            f"{layer.name:24} {layer.kind:12} {volume.dtype} {volume.shape}, voxels of {volume.voxel_size} nm "
            f"from {volume.offset} nm"
        )
    print(f"Open {viewer.get_viewer_url()} in a browser; Ctrl-C ends it.", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()


def _covers(one: Layer, other: Layer) -> bool:
    both_or_neither = (one.kind == "segmentation") == (other.kind == "segmentation")
    roi, other_roi = one.volume.roi, other.volume.roi
    return both_or_neither and roi.dims == other_roi.dims and not roi.intersect(other_roi).empty
