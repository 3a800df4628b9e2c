"""Key tables, both ways, and loading that cannot silently load nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from safelight.checkpoints.rules import Rule, Table, from_ours, load_into, their_name, to_ours
from safelight.checkpoints.tables.autoencoder import AUTOENCODER, VQ
from safelight.checkpoints.tables.clip import CLIP_TEXT
from safelight.checkpoints.tables.unet import UNET
from safelight.errors import SafelightError
from safelight.models.autoencoder import Autoencoder, AutoencoderConfig
from safelight.models.clip import ClipText, ClipTextConfig
from safelight.models.unet import UNet, UNetConfig
from safelight.models.vq import VQAutoencoder, VQConfig

TABLE = Table(
    (
        Rule("{a}.out.{b}", "{a}.out.0.{b}"),
        Rule("{a}.out.{b}", "{a}.old_out.{b}"),
        Rule("{key}", "model.{key}"),
    ),
    dropped=("{key}.counter",),
)


class _Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.out = nn.Linear(3, 1, bias=False)


SAME = Table((Rule("{key}", "{key}"),))


def _good():
    return {
        "first.weight": torch.randn(3, 2),
        "first.bias": torch.randn(3),
        "out.weight": torch.randn(1, 3),
    }


def _refused(state, *said):
    module = _Small()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(SafelightError) as caught:
        load_into(module, state, SAME, what="a small model", source="small.safetensors")
    message = str(caught.value)
    assert "\n" not in message
    for words in ("small.safetensors does not hold a small model", *said):
        assert words in message
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_a_table_renames_both_ways_and_reads_older_spellings():
    ours = {"x.y.out.weight": torch.ones(1), "plain": torch.ones(1)}
    theirs = from_ours(TABLE, ours)
    assert list(theirs) == ["x.y.out.0.weight", "model.plain"]
    assert to_ours(TABLE, theirs, "it").keys() == ours.keys()
    assert list(to_ours(TABLE, {"x.y.old_out.weight": torch.ones(1)}, "it")) == ["x.y.out.weight"]
    assert to_ours(TABLE, {"model.x.counter": torch.ones(1)}, "it") == {}


def test_a_key_without_a_row_and_a_tensor_twice_are_refused():
    with pytest.raises(SafelightError, match="it holds 'stray'"):
        to_ours(TABLE, {"stray": torch.ones(1)}, "it")
    twice = {"x.out.0.w": torch.ones(1), "x.old_out.w": torch.ones(1)}
    with pytest.raises(SafelightError, match="one tensor twice"):
        to_ours(TABLE, twice, "it")
    with pytest.raises(KeyError):
        their_name(Table((Rule("only", "only"),)), "another")


@given(st.lists(st.from_regex(r"[a-z]{1,6}(\.([a-z]{1,5}|[0-9]{1,2})){0,4}", fullmatch=True)))
def test_any_names_survive_the_way_there_and_back(names):
    for table in (UNET, AUTOENCODER, VQ, CLIP_TEXT):
        renamed = {name: their_name(table, name) for name in names}
        for name, theirs in renamed.items():
            back = to_ours(table, {theirs: torch.ones(1)}, "it")
            if theirs != name or list(back) == [name]:
                assert list(back) == [name]


@pytest.mark.parametrize(
    ("module", "table"),
    [
        (lambda: UNet(UNetConfig(class_dim=10, added_dim=20, guidance_dim=30)), UNET),
        (lambda: UNet(UNetConfig(context_heads=64)), UNET),
        (lambda: Autoencoder(AutoencoderConfig(attention=(False, True, True, True))), AUTOENCODER),
        (lambda: VQAutoencoder(VQConfig(attention=(False, False, True))), VQ),
        (lambda: ClipText(ClipTextConfig(projection_dim=8)), CLIP_TEXT),
    ],
)
def test_every_parameter_at_full_width_survives_the_way_there_and_back(module, table):
    with torch.device("meta"):
        state = module().state_dict()
    theirs = from_ours(table, state)
    assert len(theirs) == len(state)
    assert to_ours(table, theirs, "it").keys() == state.keys()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_fitting_state_is_loaded_in_the_asked_precision(device):
    with torch.device(device):
        module = _Small()
    state = _good()
    load_into(module, state, SAME, what="a small model", source="it", dtype=torch.bfloat16)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name].bfloat16())
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_what_does_not_fit_is_one_message_that_says_all():
    _refused({}, "missing: first.bias, first.weight and 1 more", "By its keys it is empty")
    _refused(
        {name: t for name, t in _good().items() if name != "first.bias"}, "missing: first.bias"
    )
    _refused(_good() | {"more": torch.ones(1)}, "left over: more")
    wrong = _good() | {"first.weight": torch.ones(3, 5)}
    _refused(wrong, "misshapen: first.weight is 3x5, not 3x2")
    _refused(_good() | {"out.weight": torch.ones(1, 3).int()}, "out.weight is torch.int32")
    vgg = {f"features.{i}.weight": torch.ones(1) for i in range(30)}
    _refused(vgg, "missing: first.bias", "left over: features.0.weight", "it is a VGG16")


def test_names_in_a_complaint_are_those_of_the_file():
    table = Table((Rule("first.{key}", "one.{key}"), Rule("{key}", "{key}")))
    with pytest.raises(SafelightError, match=r"missing: one\.bias, one\.weight; left over: uno"):
        load_into(
            _Small(),
            {"out.weight": torch.ones(1, 3), "uno": torch.ones(1)},
            table,
            what="it",
            source="it",
        )
