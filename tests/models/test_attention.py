from __future__ import annotations

import torch

from wovr.models.attention import Attention, CrossAttentionBlock, SelfAttentionBlock


def test_attention_equals_torchs_own() -> None:
    ours, theirs = Attention(16, 16, 4), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
    theirs.out_proj = ours.out  # type: ignore[assignment]
    x, context = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    mask = torch.tensor([[True, True, False, True, False], [True] * 5])
    expected, _ = theirs(x, context, context, key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, context, mask), expected)


def test_what_is_masked_is_not_seen() -> None:
    mask = torch.tensor([[True, True, False]])
    x = torch.randn(1, 3, 8)
    changed = x.clone()
    changed[:, 2] += 5
    block = SelfAttentionBlock(8, 2)
    torch.testing.assert_close(block(x, mask)[:, :2], block(changed, mask)[:, :2])
    decoder, queries = CrossAttentionBlock(8, 2), torch.randn(1, 4, 8)
    torch.testing.assert_close(decoder(queries, x, mask), decoder(queries, changed, mask))
    assert (decoder(queries, x) - decoder(queries, changed)).abs().max() > 1e-4
