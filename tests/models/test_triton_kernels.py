"""The Triton kernels compute what torch computes; Triton's interpreter runs them on the CPU."""

import os
import subprocess
import sys
from importlib.util import find_spec

from conftest import need

need(find_spec("triton") is not None, "triton")

CHECK = """
import math, torch
from torch.nn.functional import conv3d, max_pool3d
from emsuite.models import aligned, norm_triton as norms, skip_triton as skips
from emsuite.models.crop import arrange, centre_crop
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

def check_weights(out, width, parts):
    weight = torch.randn(out, width, 3, 1, 3)
    whole = aligned.pad_weight(weight, parts, torch.float32)
    close(channels.resize_weight(weight, tuple(whole.shape), parts, torch.float32), whole, "padded weights")
    close(channels.resize_weight(whole, tuple(weight.shape), parts, torch.float32), weight, "cropped weights")

def check_pool(width, factor, crop):
    x = torch.randint(-3, 9, (2, width, 4, 6, 12)).float().relu()  # many equal maxima
    x = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    pooled, centre = max_pool3d(x, factor), centre_crop(x, crop)
    slopes = [torch.randn(t.shape).contiguous(memory_format=torch.channels_last_3d) for t in (pooled, centre)]
    torch.autograd.backward([pooled, centre], slopes)
    mine = skips.pool(x.detach(), factor)
    assert torch.equal(mine, pooled)
    close(skips.pool_backward(*slopes, x.detach(), mine, factor), x.grad, "pool backward")

def check_join(width, factor):
    coarse, channels_of_skip = (2, 3, 2), 8
    fine = [a * b for a, b in zip(coarse, factor)]
    skip = torch.randn(2, channels_of_skip, *(n + 3 for n in fine)).contiguous(memory_format=torch.channels_last_3d)
    blocks = torch.randn(2, *coarse, math.prod(factor) * width, requires_grad=True)
    centre = centre_crop(skip, fine).requires_grad_()
    joined = torch.cat([centre, arrange(blocks, factor).relu()], 1)
    mine = skips.join(skip, blocks.detach(), factor)
    assert torch.equal(mine, joined)
    slope = torch.randn_like(joined).contiguous(memory_format=torch.channels_last_3d)
    joined.backward(slope)
    to_centre, to_blocks = skips.join_backward(slope, mine, channels_of_skip, factor)
    assert torch.equal(to_centre, centre.grad) and torch.equal(to_blocks, blocks.grad)

def check_norm(width, shape):
    ours, theirs = (torch.nn.BatchNorm3d(width, momentum=0.03) for _ in range(2))
    with torch.no_grad():
        ours.weight.normal_(), ours.bias.normal_(0, 0.3), ours.running_mean.normal_(), ours.running_var.uniform_(1, 2)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(*shape[:1], width, *shape[1:]) * (0.1 + torch.rand(width)[:, None, None, None]) + 5
    mine, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = norms.norm_relu(ours, mine), theirs(plain).relu()
    assert (y - expected).abs().max() < 1e-4 and 0.2 < (expected > 0).float().mean() < 0.8
    slope = torch.randn_like(expected)
    y.backward(slope), expected.backward(slope)
    for a, b in ((mine.grad, plain.grad), (ours.weight.grad, theirs.weight.grad), (ours.bias.grad, theirs.bias.grad)):
        assert (a - b).abs().max() <= 3e-4 * b.abs().max(), ((a - b).abs().max(), b.abs().max())
    for name, value in theirs.state_dict().items():
        close(ours.state_dict()[name].double(), value.double(), name)
    with torch.no_grad():
        close(norms.norm_relu(ours.eval(), x), theirs.eval()(x).relu(), "norm in evaluation")

check_norm(24, (2, 3, 5, 7))
check_norm(96, (1, 2, 9, 8))
for case in ((14, 24, 2), (30, 6, 1), (16, 24, 2)):
    check_weights(*case)
check_pool(16, (1, 3, 3), (2, 3, 5))
check_pool(24, (2, 2, 2), (3, 4, 8))
check_join(16, (1, 3, 3))
check_join(24, (2, 2, 2))
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
