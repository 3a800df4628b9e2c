"""Networks made ready for many calls give what they gave, and compute less."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from safelight.models.controlnet import ControlNetConfig, control_of
from safelight.models.prepared import prepared
from safelight.models.unet import UNet
from safelight.nn.kept import Kept, KeptRows
from safelight.nn.packed import PackedConv2d, can_pack
from safelight.types import Conditioning
from tiny_model import tiny_folder


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = 0

    def forward(self, x, other=None):
        self.rows += len(x)
        return 2 * x if other is None else x + other


def test_a_layer_is_asked_again_for_other_values_alone():
    base = Counting()
    kept, x, y = Kept(base, 16), torch.ones(2, 3), torch.zeros(2, 3)
    with torch.no_grad():
        for given in ((x, None), (x.clone(), None), (x, y), (x, y), (x, None)):
            wanted = given[0] * 2 if given[1] is None else given[0] + given[1]
            assert torch.equal(kept(*given), wanted)
        assert base.rows == 4
        assert torch.equal(kept(2 * x, None), 4 * x)
        assert kept(x.double(), None).dtype == torch.float64
        assert base.rows == 8
        for i in range(40):  # what is long past is forgotten
            kept(x + i, None)
        before = base.rows
        kept(y - 1, None)
        kept(x.double(), None)
        assert base.rows == before + 4


def test_rows_are_remembered_whatever_the_batch():
    base = Counting()
    kept, rows = KeptRows(base, 3), torch.arange(6.0).reshape(3, 2)
    with torch.no_grad():
        assert torch.equal(kept(rows[:2]), 2 * rows[:2])
        assert base.rows == 2
        assert torch.equal(kept(rows[[2, 0, 1, 2]]), 2 * rows[[2, 0, 1, 2]])
        assert base.rows == 3  # the new one is asked for once
        kept(9 + rows)  # three others in their places
        before = base.rows
        assert torch.equal(kept(rows), 2 * rows)
        assert base.rows == before + 3


@pytest.mark.parametrize("size", [(2, 2), (8, 5)])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 32, 3, padding=1),
        nn.Conv2d(6, 5, 3, padding=1, stride=2, bias=False),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 16, 3, padding=1, groups=4),
    ],
)
def test_a_packed_convolution_is_the_convolution(layer, size):
    assert can_pack(layer)
    packed = PackedConv2d(layer)
    with torch.inference_mode():
        for height, width in (size, (4, 4), size):
            for batch in (1, 3):
                x = torch.randn(batch, layer.in_channels, height, width)
                torch.testing.assert_close(packed(x), layer(x), atol=1e-5, rtol=1e-5)


def test_what_is_not_packed():
    assert not can_pack(nn.Conv2d(4, 4, 3, padding="same"))
    assert not can_pack(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"))
    assert not can_pack(nn.Conv2d(4, 4, 3).to(torch.bfloat16))


def test_prepared_networks_give_what_the_first_give_when_everything_changes():
    folder = tiny_folder()
    unet = folder.unet
    control = control_of(unet, ControlNetConfig(unet.config, hint_block_channels=(4, 6, 8)))
    with torch.no_grad():
        for parameter in control.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ready, steering = prepared(unet), prepared(control)
    autoencoder = prepared(folder.autoencoder)
    shared = {id(parameter) for parameter in unet.parameters()}
    assert any(isinstance(module, Kept) for module in ready.modules())
    assert {id(parameter) for parameter in ready.parameters()} <= shared
    assert not any(isinstance(module, Kept | PackedConv2d) for module in unet.modules())
    for batch, t in ((1, 3.0), (2, 900.0), (2, 900.0), (1, 900.0)):
        x, hint = torch.randn(batch, 4, 8, 8), torch.rand(batch, 3, 32, 32)
        cond = Conditioning(context=torch.randn(batch, 5, 32))
        times = torch.full((batch,), t)
        with torch.inference_mode():
            torch.testing.assert_close(
                ready(x, times, cond), unet(x, times, cond), atol=2e-5, rtol=1e-4
            )
            for ours, first in zip(
                steering(x, times, cond, hint), control(x, times, cond, hint), strict=True
            ):
                torch.testing.assert_close(ours, first, atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(
                autoencoder.decode(x), folder.autoencoder.decode(x), atol=2e-5, rtol=1e-4
            )


def kept_in(network):
    return [path for path, module in prepared(network).named_modules() if isinstance(module, Kept)]


def test_what_changes_with_x_or_costs_a_wait_is_not_remembered():
    config = tiny_folder().unet.config
    assert any("attn2" in path for path in kept_in(UNet(config)))
    free = kept_in(UNet(replace(config, cross_attention_dim=None)))
    assert free
    assert not any("attn2" in path for path in free)  # which looks at x itself
    elsewhere = kept_in(UNet(config).to("meta"))  # a device that is not the CPU
    assert elsewhere
    assert all("attn2" in path for path in elsewhere)
