"""Attention in half precision."""

import pytest
import torch

from safelight.nn.attention import Attention


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_upcasting_attends_in_float32_under_autocast(dtype, monkeypatch):
    seen: list[torch.dtype] = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(q, k, v, *, is_causal):
        out = attend(q, k, v, is_causal=is_causal)
        seen.append(out.dtype)
        return out

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", watched)
    torch.manual_seed(0)
    x = torch.randn(2, 9, 16)
    plain, upcast = Attention(16, 2), Attention(16, 2, upcast=True)
    upcast.load_state_dict(plain.state_dict())
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        one, two = plain(8 * x), upcast(8 * x)
    assert seen == [dtype, torch.float32]
    assert one.dtype == two.dtype == dtype
    assert torch.equal(one, two) == (dtype == torch.float32)
    torch.testing.assert_close(one, two, atol=0.05, rtol=0.05)
