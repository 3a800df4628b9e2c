import pytest
import torch

from safelight.models.unet import UNet
from safelight.nn.attention import Attention
from safelight.nn.identity_attention import (
    IdentityAttention,
    self_attentions,
    with_identity_attention,
)
from safelight.nn.substitute import substituted
from safelight.types import Conditioning
from tiny_model import tiny_folder

MID = "mid_block.attentions.0.transformer_blocks.0.attn1"


@pytest.fixture(scope="module")
def unet() -> UNet:
    return tiny_folder().unet


def _output(unet):
    generator = torch.Generator().manual_seed(1)
    x, context = (torch.randn(s, generator=generator) for s in ((2, 4, 8, 8), (2, 5, 32)))
    with torch.no_grad():
        return unet(x, torch.tensor([400.0, 20.0]), Conditioning(context=context))


def test_a_map_of_the_identity_passes_the_values_on():
    attention = Attention(8, 2)
    torch.nn.init.zeros_(attention.to_q.weight)
    x = torch.randn(2, 1, 8)  # a token that has itself alone to look at
    torch.testing.assert_close(IdentityAttention(attention)(x), attention(x))
    x = torch.randn(2, 6, 8)
    torch.testing.assert_close(
        IdentityAttention(attention)(x)[:, 3:4], IdentityAttention(attention)(x[:, 3:4])
    )


def test_the_layers_that_match_are_perturbed_and_the_network_stays_as_it_is(unet):
    before, paths = _output(unet), [path for path, _ in self_attentions(unet)]
    second = with_identity_attention(unet, ("mid", "up_blocks.1"))
    changed = {p for p, m in second.named_modules() if isinstance(m, IdentityAttention)}
    assert changed == {p for p in paths if p.startswith(("mid", "up_blocks.1"))} > {MID}
    assert not torch.allclose(_output(second), before, atol=1e-4)
    assert torch.equal(_output(unet), before)
    assert isinstance(unet.get_submodule(MID), Attention)


def test_weights_are_shared(unet):
    second = with_identity_attention(unet, ("mid",))
    assert {id(p) for p in second.parameters()} <= {id(p) for p in unet.parameters()}


def test_a_pattern_that_is_found_nowhere_is_refused(unet):
    with pytest.raises(ValueError, match=r"'middle' is found in no path"):
        with_identity_attention(unet, ("mid", "middle"))


def test_only_a_layer_that_is_there_is_replaced(unet):
    with pytest.raises(AttributeError, match="attn9"):
        substituted(unet, {"mid_block.attn9": torch.nn.Identity()})
