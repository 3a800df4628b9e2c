"""Cross-attention that tells what it looks at, against its own definition."""

from dataclasses import replace

import pytest
import torch

from safelight.models.unet import UNet
from safelight.nn.decoupled import cross_attentions
from safelight.nn.watched_attention import WatchedAttention, attention_map, watched
from safelight.types import Conditioning
from tiny_model import tiny_folder

ONE = tiny_folder().unet.config
FAMILIES = {
    "sd1": ONE,
    "sd2": replace(ONE, use_linear_projection=True, upcast_attention=True),
    "xl": replace(ONE, use_linear_projection=True, transformer_layers=(1, 2), added_dim=32),
}


def output(unet: UNet, rows: int = 2):
    generator = torch.Generator().manual_seed(1)
    shapes = ((rows, 4, 8, 6), (rows, 5, 32), (rows, 32))
    x, context, vector = (torch.randn(shape, generator=generator) for shape in shapes)
    cond = Conditioning(context=context, vector=vector if unet.config.added_dim else None)
    with torch.no_grad():
        return unet(x, torch.full((rows,), 400.0), cond)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_map_is_the_softmax_of_its_layer_and_the_output_the_same_bits(family):
    torch.manual_seed(0)
    unet = UNet(FAMILIES[family]).eval()
    wanted, projected = [], {}

    def softmax(module, *_):
        """Of each query with each key, head by head, as the paper has it."""
        q, k = projected.pop(module.to_q), projected.pop(module.to_k)
        width = q.shape[-1] // module.heads
        heads = [slice(i * width, (i + 1) * width) for i in range(module.heads)]
        maps = [(q[..., h] @ k[..., h].mT / width**0.5).softmax(-1) for h in heads]
        wanted.append(sum(maps) / len(maps))

    hooks = []
    for _, layer in cross_attentions(unet):
        for part in (layer.to_q, layer.to_k):
            hooks.append(part.register_forward_hook(lambda m, _, out: projected.update({m: out})))
        hooks.append(layer.register_forward_hook(softmax))
    plain = output(unet)
    for hook in hooks:
        hook.remove()

    seen = []
    second = watched(unet, lambda q, k, heads: seen.append(attention_map(q, k, heads)))
    assert torch.equal(output(second), plain)
    assert len(seen) == len(wanted) == len(cross_attentions(unet))
    for ours, theirs in zip(seen, wanted, strict=True):
        assert ours.shape[-1] == 5
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(ours.sum(-1), torch.ones(ours.shape[:-1]))


def test_the_network_stays_as_it_is_and_shares_its_weights():
    unet = tiny_folder().unet
    before, names = output(unet), list(unet.state_dict())
    second = watched(unet, lambda *_: None)
    assert {id(p) for p in second.parameters()} == {id(p) for p in unet.parameters()}
    assert any(isinstance(module, WatchedAttention) for module in second.modules())
    assert not any(isinstance(module, WatchedAttention) for module in unet.modules())
    assert list(unet.state_dict()) == names
    assert torch.equal(output(unet), before)


def test_a_layer_may_be_watched_alone():
    unet = tiny_folder().unet
    paths = [path for path, _ in cross_attentions(unet)]
    seen = []
    output(watched(unet, lambda *told: seen.append(told), paths[:1]))
    assert len(seen) == 1 < len(paths)
