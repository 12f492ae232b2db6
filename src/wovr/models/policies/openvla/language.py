"""OpenVLA's words: the prompt, and a Llama that decodes all action tokens of a chunk at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wovr.errors import UserError
from wovr.models.policies.openvla.vision import EXTRA

BEGIN, END, EMPTY = "<s>", "</s>", "▁"
"""Llama's tokens around a prompt; the empty one stood between prompt and actions in training."""


LLAMA = frozenset(
    {
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim"),
        *("num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps"),
        *("pad_token_id", "bos_token_id", "eos_token_id", "pretraining_tp", "tie_word_embeddings", "rope_theta"),
        *("rope_scaling", "rope_parameters", "attention_bias", "attention_dropout", "mlp_bias"),
    }
)
"""Arguments of transformers' LlamaConfig that shape the network."""

_MOST_LAYERS, _LARGEST = 1000, 1 << 24  # what somebody's config.json may ask for


def prompt_of(instruction: str) -> str:
    """What the released policies are asked."""
    return f"In: What action should the robot take to {instruction.lower()}?\nOut:"


def read_tokenizer(source: str) -> str:
    """A tokenizer as JSON text.

    Args:
        source: A folder with tokenizer.json or tokenizer.model (SentencePiece, as Llama's); or the JSON text itself,
            which is what a checkpoint holds.

    Raises:
        UserError: The package is missing, or there is no tokenizer there.
    """
    if source.lstrip().startswith("{"):
        return source
    folder = Path(source)
    if (folder / "tokenizer.json").is_file():
        return (folder / "tokenizer.json").read_text(encoding="utf-8")
    if not (folder / "tokenizer.model").is_file():
        raise UserError(
            f"{folder}: neither tokenizer.json nor tokenizer.model here", "give the folder of a released checkpoint"
        )
    try:
        from transformers import LlamaTokenizerFast

        return str(LlamaTokenizerFast.from_pretrained(str(folder)).backend_tokenizer.to_str())
    except ImportError as error:
        raise UserError(f"{folder / 'tokenizer.model'}: reading it needs transformers, sentencepiece", EXTRA) from error
    except (ValueError, OSError, RuntimeError, TypeError) as error:
        raise UserError(f"{folder / 'tokenizer.model'}: not readable ({error})", "download it again") from error


class Prompts:
    """Instructions to the numbers of the prompt's tokens.

    Args:
        tokenizer: JSON text, see `read_tokenizer`.
        vocabulary: Number of words; tokens must be below.

    Raises:
        UserError: The package is missing, the text is no tokenizer, it lacks Llama's marks or has too many words.
    """

    def __init__(self, tokenizer: str, vocabulary: int) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise UserError("OpenVLA needs the package tokenizers", EXTRA) from error
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer)
        # The package raises the bare class.
        except Exception as error:
            raise UserError(f"the tokenizer is not readable: {error}", "use the checkpoint's tokenizer.json") from error
        marks = {mark: self._tokenizer.token_to_id(mark) for mark in (BEGIN, END, EMPTY)}
        absent = [mark for mark, number in marks.items() if number is None]
        if absent:
            raise UserError(f"the tokenizer has no token '{absent[0]}'", "use Llama's, from the checkpoint's folder")
        self.begin, self.end, self.empty = (int(number or 0) for number in marks.values())
        self._vocabulary = vocabulary
        self._tokens = lru_cache(maxsize=4096)(self._encode)

    def __call__(self, instruction: str) -> list[int]:
        """Numbers of the prompt's tokens, the beginning's first and the empty one last.

        Raises:
            UserError: A token is beyond the vocabulary.
        """
        return self._tokens(instruction)

    def __deepcopy__(self, memo: Any) -> Prompts:
        """The same one: it has no state, and the tokenizer behind it is not Python's to copy."""
        return self

    def _encode(self, instruction: str) -> list[int]:
        tokens = list(self._tokenizer.encode(prompt_of(instruction), add_special_tokens=False).ids)
        tokens = [self.begin, *tokens]
        if tokens[-1] != self.empty:
            tokens.append(self.empty)
        if max(tokens) >= self._vocabulary:
            raise UserError(
                f"the tokenizer's token {max(tokens)} is beyond the vocabulary of {self._vocabulary}",
                "use the tokenizer of the same checkpoint",
            )
        return tokens


def make_llama(numbers: Mapping[str, Any]) -> Any:
    """A Llama with random weights: transformers' network, of which `decode` uses the parts.

    Args:
        numbers: Arguments of transformers' LlamaConfig; what is absent is as in Llama 2 of 7 B. Those that are not in
            LLAMA have no say in the network and are passed over: some of them name code to fetch.

    Raises:
        UserError: transformers is missing or refuses the numbers.
    """
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise UserError("OpenVLA needs the package transformers", EXTRA) from error
    shape = {name: numbers[name] for name in LLAMA & numbers.keys()}
    for name, number in shape.items():
        most = _MOST_LAYERS if name == "num_hidden_layers" else _LARGEST
        if isinstance(number, int) and abs(number) > most:
            raise UserError(f"language: {name} is {str(number)[:40]}", f"give at most {most}: no Llama has more")
    try:
        config: Any = LlamaConfig(**shape, attn_implementation="sdpa")
        llama = LlamaForCausalLM(config)
    # Its validation raises classes of its own, one version others than the next.
    except Exception as error:
        raise UserError(f"language: {error}", "give arguments of transformers' LlamaConfig that go together") from error
    kind = config.rope_parameters.get("rope_type", "default")
    if kind != "default":
        raise UserError(
            f"language: rotary positions of the kind '{kind}'", "give a Llama 2, which has the default ones"
        )
    for layer in llama.model.layers:
        layer.self_attn.is_causal = False
    # `rotary` takes its place: a buffer would lose digits when the network is converted to bf16.
    llama.model.rotary_emb = nn.Identity()
    return llama


def rotary(position: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of rotary positions, in Llama's order: the two halves of a head are a pair.

    Args:
        position: (N, T) int64.
        head_dim: Features of a head.
        theta: Base of the wavelengths.
        dtype: Of the result; angles are computed in float32.

    Returns:
        Two of (N, T, head_dim).
    """
    wave = theta ** -(torch.arange(0, head_dim, 2, device=position.device, dtype=torch.float32) / head_dim)
    angle = position[..., None].to(torch.float32) * wave  # (N, T, head_dim / 2)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def decode(llama: Any, patches: Tensor, prompts: Sequence[Sequence[int]], slots: int, end: int, again: bool) -> Tensor:
    """Run the Llama once over beginning, patches, prompt, empty action slots and end, everything seeing everything.

    As in the released OFT policies: the slots' embeddings are zero, a slot's token is read off the position before it,
    and attention is bidirectional between all positions, not only the slots. Prompts of other lengths are padded on the
    left, and padding is neither seen nor counted.

    Args:
        llama: What `make_llama` returned.
        patches: (N, P, D) float.
        prompts: N lists of token numbers, the first the beginning's.
        slots: Action tokens of a chunk, K * A.
        end: Number of the token that closes a sequence.
        again: Compute a layer's activations again in the backward pass instead of keeping them.

    Returns:
        (N, slots, D) float, the last layer's normalised features that the slots' tokens are read off.
    """
    model, config, device = llama.model, llama.config, patches.device
    longest = max(map(len, prompts))
    padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)  # (N,)
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt[1:]) for prompt in prompts], device=device)
    first = torch.tensor([[prompt[0]] for prompt in prompts], device=device)
    embed = model.embed_tokens
    empty = patches.new_zeros(len(prompts), slots, patches.shape[-1])
    last = embed(torch.full_like(first, end))
    # Padding stands where the row begins: [padding, beginning, patches, prompt, slots, end].
    begin_row = torch.cat([embed(first), patches], dim=1)  # (N, 1 + P, D)
    words = embed(ids)  # (N, longest - 1, D)
    x = torch.cat([begin_row, words, empty.to(words.dtype), last], dim=1)  # (N, T, D)
    total = x.shape[1]
    index = torch.arange(total, device=device)
    mask = None
    if int(padding.max()):
        # The padding that `ids` has between patches and prompt is moved to the row's beginning.
        head = begin_row.shape[1]
        source = torch.where(index < head + padding[:, None], index - padding[:, None], index)  # (N, T)
        x = x.gather(1, source.clamp(min=0)[..., None].expand(-1, -1, x.shape[-1]))
        mask = (index >= padding[:, None])[:, None, None, :].expand(-1, 1, total, -1)  # (N, 1, T, T)
    position = (index - padding[:, None]).clamp(min=0)  # (N, T)
    angles = rotary(position, config.head_dim, float(config.rope_parameters["rope_theta"]), x.dtype)
    for layer in model.layers:
        if again and torch.is_grad_enabled():
            x = checkpoint(layer, x, attention_mask=mask, position_embeddings=angles, use_reentrant=False)
        else:
            x = layer(x, attention_mask=mask, position_embeddings=angles)
    return model.norm(x[:, -slots - 2 : -2])  # (N, slots, D): from the prompt's last token to the last slot but one
