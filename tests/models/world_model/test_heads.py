from __future__ import annotations

import torch

from tests.models.world_model.tiny_world import pictures
from wovr.functional.images import frames_to_float
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder
from wovr.models.world_model.heads import COPY_BIAS, CopyHead


def test_the_blend_pixel_by_pixel() -> None:
    autoencoder = PatchAutoencoder(4)
    generator = torch.Generator().manual_seed(0)
    frames = frames_to_float(pictures(2, 12))  # (B, 3, 12, 16, 16): reference, memory, new (where its place is)
    reference, last, new = (autoencoder.encode_group(frames[:, :, i : i + 4]) for i in (0, 4, 8))
    head = CopyHead(autoencoder, reference=True)
    extra = head.logits
    logits = torch.randn(2, extra, 1, 4, 4, generator=generator)
    answer = torch.cat([new[:, :, None], logits], dim=1)
    blended = autoencoder.decode_group(head(answer, reference, last)[:, :, 0])
    # The same in pictures: one logit for each source, frame and pixel, laid out as the colours are.
    maps = torch.stack([logits[:, : extra // 2, 0], logits[:, extra // 2 :, 0]])
    as_colours = maps.unflatten(2, (4, 4, 4, 1)).expand(-1, -1, -1, -1, -1, 3, -1, -1).flatten(2, 5)
    of_last, of_reference = (autoencoder.decode_group(x) for x in as_colours)  # (B, 3, 4, H, W) each
    weight = torch.stack([torch.zeros_like(of_last), of_last + COPY_BIAS, of_reference]).exp()
    sources = torch.stack([frames[:, :, 8:12], frames[:, :, 7:8].expand(-1, -1, 4, -1, -1),
                           frames[:, :, 3:4].expand(-1, -1, 4, -1, -1)])  # fmt: skip
    torch.testing.assert_close(blended, (weight * sources).sum(0) / weight.sum(0), atol=1e-5, rtol=1e-5)


def test_an_answer_of_zero_is_nearly_the_last_frame() -> None:
    autoencoder = PatchAutoencoder(4)
    frames = frames_to_float(pictures(1, 4))
    last = autoencoder.encode_group(frames)
    for reference in (False, True):
        head = CopyHead(autoencoder, reference)
        blend = head(torch.zeros(1, head.channels, 2, 4, 4), last, last)
        seen = autoencoder.decode_group(blend[:, :, 1])
        assert (seen - frames[:, :, -1:]).abs().max() < 0.11


def test_a_layer_of_its_own() -> None:
    """It makes what the plain head takes; where the backbone answers 0 so does it, and lets gradients in."""
    torch.manual_seed(0)
    autoencoder = PatchAutoencoder(4)
    last, reference = (autoencoder.encode_group(frames_to_float(pictures(1, 4, seed=i))) for i in (0, 1))
    plain, deep = CopyHead(autoencoder, True), CopyHead(autoencoder, True, hidden=10)
    assert deep.channels == 10
    answer = torch.randn(1, 10, 2, 4, 4, requires_grad=True)
    made = torch.einsum("bcnhw,dc->bdnhw", torch.nn.functional.silu(answer), deep.layer.weight)
    torch.testing.assert_close(deep(answer, reference, last), plain(made, reference, last))
    nothing = torch.zeros_like(answer).requires_grad_()
    blend = deep(nothing, reference, last)
    torch.testing.assert_close(blend, plain(torch.zeros(1, plain.channels, 2, 4, 4), reference, last))
    blend.square().sum().backward()
    assert nothing.grad is not None
    assert nothing.grad.any()
