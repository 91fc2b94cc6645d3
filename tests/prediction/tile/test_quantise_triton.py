"""Logits to bytes in one pass: the same as torch's operations. Runs in triton's interpreter, on the processor."""

import os
import subprocess
import sys
from importlib.util import find_spec

from conftest import need

need(find_spec("triton") is not None, "triton")

CHECK = """
import torch
from emsuite.prediction.tile.quantise_triton import quantised

torch.manual_seed(0)
def expected(logits, truncate):
    scaled = torch.sigmoid(logits.float()) * 255.0
    return (scaled.floor() if truncate else scaled.round()).clamp(0, 255).to(torch.uint8)

def check(logits, truncate):
    stored, finite = quantised(logits, truncate)
    assert stored.is_contiguous() and stored.dtype == torch.uint8 and stored.shape == logits.shape
    assert int(finite) == 1
    off = (stored.int() - expected(logits, truncate).int()).abs()
    assert off.max() <= 1 and (off > 0).float().mean() < 1e-3, off.max()
    assert stored.float().std() > 30

for dtype in (torch.float32, torch.bfloat16):
    for truncate in (False, True):
        logits = (torch.randn(1, 3, 5, 7, 11) * 4).to(dtype)
        check(logits[0], truncate)
        check(logits.to(memory_format=torch.channels_last_3d)[0], truncate)
        padded = (torch.randn(1, 16, 5, 7, 11) * 4).to(dtype).to(memory_format=torch.channels_last_3d)
        check(padded[0, :10], truncate)
        check(padded[0, :10, 1:-1, 2:-1, 1:], truncate)

ends = torch.tensor([-torch.inf, -200.0, 0.0, 200.0, torch.inf]).view(1, 1, 1, 5)
stored, finite = quantised(ends, False)
assert stored.flatten().tolist() == [0, 0, 128, 255, 255] and int(finite) == 1
broken = torch.zeros(2, 4, 20, 20)
broken[1, 3, 19, 18] = torch.nan
assert int(quantised(broken, False)[1]) == 0
print("equal")
"""


def test_the_kernel_stores_what_torch_does() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "equal\n", done.stderr[-2000:]
