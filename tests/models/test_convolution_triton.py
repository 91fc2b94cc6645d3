"""The Triton kernels compute what torch computes; Triton's interpreter runs them on the CPU."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="needs triton")

CHECK = """
import itertools, torch
from torch.nn.functional import conv3d
from emsuite.models import channels_triton as channels, convolution_triton as kernels
torch.manual_seed(0)

def close(a, b, name):
    assert a.shape == b.shape, (name, a.shape, b.shape)
    assert (a - b).abs().max() <= 1e-5 * b.abs().max(), (name, float((a - b).abs().max()))

def check(width, out, kernel, padding, shape, samples):
    x = torch.randn(samples, width, *shape, requires_grad=True)
    weight, bias = torch.randn(out, width, *kernel, requires_grad=True), torch.randn(out, requires_grad=True)
    plain = conv3d(x, weight, None, padding=padding)
    y = kernels.convolve(x.detach(), weight.detach(), bias.detach(), padding, True, block=32)
    expected = (plain + bias[:, None, None, None]).relu()
    close(y, expected, "forward")
    gradient = torch.randn_like(expected)
    expected.backward(gradient)
    slope, of_bias = channels.bias_relu_backward(gradient, y, True)
    close(slope, gradient * (y > 0), "slope")
    close(of_bias, bias.grad, "bias")
    close(kernels.weight_gradient(x.detach(), slope, kernel, padding, block=32), weight.grad, "weight")
    if width > 1:
        close(kernels.input_gradient(slope, weight.detach(), padding, block=32), x.grad, "input")
    lines = plain.detach().contiguous(memory_format=torch.channels_last_3d)
    close(channels.bias_relu_(lines.clone(), bias.detach(), True), expected.detach(), "bias_relu")

check(1, 16, (3, 3, 3), (0, 0, 0), (5, 9, 11), 2)
check(16, 16, (3, 3, 3), (0, 0, 0), (5, 9, 11), 2)
check(32, 16, (3, 3, 3), (1, 1, 1), (4, 7, 5), 1)
check(16, 32, (1, 3, 3), (0, 0, 0), (3, 6, 40), 1)
check(1, 16, (1, 3, 3), (0, 1, 1), (3, 6, 7), 1)
"""


def test_kernels_compute_what_torch_computes():
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
