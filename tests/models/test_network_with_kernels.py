"""A whole network computes with the Triton kernels what it computes with torch; Triton's interpreter runs them."""

import os
import subprocess
import sys
from importlib.util import find_spec

from conftest import need

need(find_spec("triton") is not None, "triton")

CHECK = """
import torch
from emsuite.common import device
from emsuite.models import aligned
from emsuite.models.network import Network
from emsuite.models.receptive_field import receptive_field
from emsuite.models.unet_settings import UNetSettings

torch.manual_seed(0)
settings = UNetSettings(num_fmaps=12, fmap_inc_factor=2, num_fmaps_out=14, downsample_factors=[(1, 2, 2)])
network = Network(settings, 1, {"lsds": 10, "affs": 3})
x = torch.rand(1, 1, *receptive_field(settings).smallest) * 2 - 1

def run():
    network.zero_grad()
    logits = network(x)
    sum(values.square().sum() for values in logits.values()).backward()
    with torch.no_grad():
        predicted = network(x)
    return logits, predicted, [weight.grad.clone() for weight in network.parameters()]

expected = run()
device.runs_triton = lambda tensor: True
with aligned.forced(True):
    found = run()
for name in ("lsds", "affs"):
    for which in (0, 1):
        torch.testing.assert_close(found[which][name], expected[0][name], rtol=1e-4, atol=1e-5)
for mine, theirs in zip(found[2], expected[2]):
    difference = (mine - theirs).norm() / theirs.norm()
    assert difference < 1e-3, difference
"""


def test_a_network_with_kernels_computes_what_torch_computes():
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
