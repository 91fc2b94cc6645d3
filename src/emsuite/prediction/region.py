"""The region that is predicted: in nm at the door, in voxels of raw inside."""

from emsuite.common.errors import BadInput
from emsuite.common.geometry import Roi
from emsuite.io.regions import parse_roi
from emsuite.io.volume import Volume
from emsuite.models.network import AnyNetwork, AutocontextNetwork
from emsuite.prediction.tiling import BY_STRIDE, Tiling


def valid_roi(network: AnyNetwork, raw: Volume, roi: Roi, tiling: Tiling = BY_STRIDE) -> Roi:
    """Return the part of `roi` (nm) that can be predicted from real voxels alone.

    Where LSDs are stored, this is the part where the LSDs have real context, as in the originals: the network that
    reads them finds zeros around them.

    Raises:
        BadInput: no voxel has real context.
    """
    receptive_field = network.receptive_field
    if tiling.stores_lsds and isinstance(network, AutocontextNetwork):
        receptive_field = network.frozen.receptive_field
    held = in_voxels(raw, raw.roi)
    valid_vx = tiling.real_context(receptive_field, held)
    if min(valid_vx.shape) <= 0:
        raise BadInput(
            f"{raw.path}: {tuple(raw.spatial_shape)} voxels are no more than the network's context "
            f"{held.shape - valid_vx.shape}; leave out --valid{' and --tile original' if tiling.truncates else ''} to "
            "predict with context made up"
        )
    valid = in_nm(raw, valid_vx)
    if valid.intersect(roi).empty:
        raise BadInput(f"{raw.path}: nothing of {roi} nm has real context, {valid} has; leave out --valid")
    return valid.intersect(roi)


def predicted_roi(network: AnyNetwork, raw: Volume, roi: str | None, tiling: Tiling, valid: bool) -> Roi:
    """Return the region to predict, nm: `roi` as the user wrote it, None for all of raw; see `valid_roi` too."""
    region = raw.roi if roi is None else parse_roi(roi, raw)
    return valid_roi(network, raw, region, tiling) if valid or tiling.valid else region


def in_voxels(raw: Volume, roi: Roi) -> Roi:
    """Return `roi` (nm) in voxels of `raw`, counted from its first one."""
    return Roi((roi.offset - raw.offset) / raw.voxel_size, roi.shape / raw.voxel_size)


def in_nm(raw: Volume, voxels: Roi) -> Roi:
    """Return the inverse of `in_voxels`."""
    return Roi(voxels.offset * raw.voxel_size + raw.offset, voxels.shape * raw.voxel_size)
