"""From logits to stored bytes in one pass on a GPU: sigmoid, times 255, rounded or cut off, and whether one is NaN.

    logits   v0 c0 c1 c2 | v1 c0 c1 c2 | ...        channels of a voxel side by side, or in any other order
    stored   c0: v0 v1 ... | c1: v0 v1 ... | c2     one byte each, channel after channel

torch takes eight passes over float32 for the same. Import this module where triton is installed.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_VALUES = 2048  # of one program


def quantised(logits: Tensor, truncate: bool) -> tuple[Tensor, Tensor]:
    """Return 255 times the sigmoid of logits as uint8, and whether none of them is NaN.

    Args:
        logits: `(C, Z, Y, X)` float32, bfloat16 or float16.
        truncate: whether fractions are cut off; otherwise values are rounded, halves to even.

    Returns:
        `(C, Z, Y, X)` uint8, contiguous, and one int32: 1, or 0 if there is NaN. By rounding of the exponential a
        value may differ from torch's by 1.
    """
    channels, z, y, x = logits.shape
    if logits.stride(2) != x * logits.stride(3) or logits.stride(1) != y * logits.stride(2):
        logits = logits.contiguous()
    stored = torch.empty((channels, z, y, x), dtype=torch.uint8, device=logits.device)
    finite = torch.ones((), dtype=torch.int32, device=logits.device)
    voxels, padded = z * y * x, triton.next_power_of_2(channels)
    block = max(16, _VALUES // padded)
    _quantise[(triton.cdiv(voxels, block),)](
        logits, stored, finite, voxels, logits.stride(0), logits.stride(3),
        CHANNELS=channels, PADDED=padded, BLOCK=block, TRUNCATE=truncate,
    )  # fmt: skip
    return stored, finite


@triton.jit
def _quantise(  # type: ignore[no-untyped-def]
    logits,
    stored,
    finite,
    voxels,
    along_channels,
    along_voxels,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    TRUNCATE: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    channel = tl.arange(0, PADDED).to(tl.int64)
    inside = (at[:, None] < voxels) & (channel[None, :] < CHANNELS)
    where = at[:, None] * along_voxels + channel[None, :] * along_channels
    value = tl.load(logits + where, mask=inside, other=0.0).to(tl.float32)
    wrong = tl.sum(tl.sum((value != value).to(tl.int32), axis=1), axis=0)
    tl.store(finite, 0, mask=wrong > 0)
    scaled = 1.0 / (1.0 + tl.exp(-value)) * 255.0
    scaled = tl.minimum(tl.maximum(scaled, 0.0), 255.0)
    if not TRUNCATE:
        # a float32 of 1.5 * 2^23 has no place for fractions: the sum is rounded to the nearest, halves to even
        scaled = (scaled + 12582912.0) - 12582912.0
    tl.store(stored + channel[None, :] * voxels + at[:, None], scaled.to(tl.int32).to(tl.uint8), mask=inside)
