import pytest
import torch

from safelight.models.deep_reuse import DeepReuse
from safelight.types import Conditioning
from tiny_model import tiny_folder


@pytest.fixture(scope="module")
def unet():
    return tiny_folder().unet


def asked(rows: int = 2, residuals: bool = False, unet=None) -> tuple:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    x, cond = drawn(rows, 4, 8, 8), Conditioning(context=drawn(rows, 5, 32))
    if residuals:
        emb = unet.embed(torch.full((rows,), 500.0), cond)
        middle, skips = unet.descend(unet.conv_in(x), emb, cond)
        added = tuple(0.3 * drawn(*part.shape) for part in (*skips, middle))
        cond = Conditioning(context=cond.context, residuals=added)
    return x, torch.full((rows,), 500.0), cond


class Counted:
    """A U-Net that counts how often its deep layers are computed."""

    def __init__(self, unet):
        self.unet, self.whole = unet, 0
        self.embed, self.from_deep = unet.embed, unet.from_deep

    def __call__(self, *given):
        return self.unet(*given)

    def with_deep(self, *given):
        self.whole += 1
        return self.unet.with_deep(*given)


@pytest.mark.parametrize("residuals", [False, True])
@torch.no_grad()
def test_both_parts_of_a_unet_give_what_the_whole_gives(unet, residuals):
    x, t, cond = asked(residuals=residuals, unet=unet)
    emb = unet.embed(t, cond)
    out, deep = unet.with_deep(x, emb, cond)
    torch.testing.assert_close(out, unet(x, t, cond), rtol=0, atol=0)
    torch.testing.assert_close(unet.from_deep(x, emb, cond, deep), out, rtol=0, atol=0)
    assert (unet.from_deep(x + 1, emb, cond, deep) - unet(x + 1, t, cond)).abs().max() > 1e-3


@torch.no_grad()
def test_deep_layers_are_computed_in_each_third_step(unet):
    counted = Counted(unet)
    reuse = DeepReuse(counted, every=3)
    x, t, cond = asked()
    computed = []
    for step in range(9):
        before = counted.whole
        reuse(x, t - step, cond)
        reuse(x, t - step, cond)  # two calls in a step, such as those of windows
        computed.append(counted.whole - before)
    assert computed == [2, 0, 0, 2, 0, 0, 2, 0, 0]


@torch.no_grad()
def test_each_call_of_a_step_takes_its_own_and_one_of_another_size_is_computed_whole(unet):
    counted = Counted(unet)
    reuse = DeepReuse(counted, every=9)
    x, t, cond = asked()
    one, two = reuse(x, t, cond), reuse(-x, t, cond)
    emb = unet.embed(t - 1, cond)
    for sign, known in ((1, one), (-1, two)):
        _, deep = unet.with_deep(sign * x, unet.embed(t, cond), cond)
        again = reuse(sign * x, t - 1, cond)
        torch.testing.assert_close(again, unet.from_deep(sign * x, emb, cond, deep), rtol=0, atol=0)
        assert (again - known).abs().max() > 0
    assert counted.whole == 2
    reuse(*asked(rows=1))
    assert counted.whole == 3
