"""Looking at volumes in neuroglancer: how layers are arranged, and the local server.

The server is neuroglancer's own, in this process, with its client bundled: it needs no network and listens on the
loopback address alone, unless another is asked for.
"""

import math
import threading
from collections.abc import Sequence

import neuroglancer

from emsuite.common.errors import BadInput
from emsuite.visualization.layers import Layer, axes, neuroglancer_layer, world

LOOPBACK = "127.0.0.1"
# Smaller volumes are enlarged to this many pixels; of larger ones, about as many voxels are shown (and read) at first.
_PIXELS = 400


def parse_position(text: str) -> tuple[float, ...]:
    """`z,y,x` in nm; raises BadInput."""
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
    """Neuroglancer's state that shows the layers, one view per column, at `position` (nm, z y x).

    Without one it is centred on the first layer, which must have three axes if there is one.

    Positions are in voxels of the first layer, z y x, from the world's origin. Hidden at first are masks, and whatever
    would cover an image (or a segmentation) that is shown in the same column.
    """
    first = columns[0][0].volume
    if position is not None and len(position) != first.voxel_size.dims:
        raise BadInput(f"{first.path}: has {first.voxel_size.dims} axes, expected the three that a position is in")
    centre = position or [(begin + end) / 2 for begin, end in zip(first.roi.begin, first.roi.end, strict=True)]
    largest = max(first.roi.shape) / min(first.voxel_size)
    state = neuroglancer.ViewerState(
        dimensions=world(first),
        display_dimensions=axes(first)[::-1],
        position=[nm / size for nm, size in zip(centre, first.voxel_size, strict=True)],
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
    """A viewer of the layers, served while the object lives, by this process's one server, on the address `bind`."""
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
    """Show the layers (see `viewer_state`) until Ctrl-C; prints them and the address to open in a browser."""
    viewer = open_viewer(columns, bind, position)
    for layer in (layer for column in columns for layer in column):
        volume = layer.volume
        print(
            f"{layer.name:24} {layer.kind:12} {volume.dtype} {volume.shape}, voxels of {tuple(volume.voxel_size)} nm "
            f"from {tuple(volume.offset)} nm"
        )
    print(f"Open {viewer.get_viewer_url()} in a browser; Ctrl-C ends it.", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()


def _covers(one: Layer, other: Layer) -> bool:
    same_sort = (one.kind == "segmentation") == (other.kind == "segmentation")
    here, there = one.volume.roi, other.volume.roi
    return same_sort and here.dims == there.dims and not here.intersect(there).empty
