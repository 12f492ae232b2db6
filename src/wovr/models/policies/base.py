"""The contract of a policy: images, an instruction and maybe proprioception in, a chunk of action tokens out.

All K x A tokens of a chunk are decoded in parallel: given the observation they are independent of each other, so a
policy is its `logits`, and sampling, greedy decoding, log-probabilities and entropies follow from those here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from wovr.errors import UserError, check_least
from wovr.functional.chunk_sums import sum_log_probs
from wovr.functional.coherent import coherent_log_probs, latent_nodes, tilted
from wovr.models.checkpoint import Network, known
from wovr.types import CHUNK, Observation

MOST_SPREADS = 5.0
"""How far from the demonstrations' mean proprioception can seem to a policy, in their standard deviations."""


@dataclass
class ActionChunk:
    """K actions for each of N environments.

    Attributes:
        actions: (N, K, A) float32 in [-1, 1], the centres of the tokens' bins.
        tokens: (N, K, A) int64 in [0, bins).
        log_probs: (N, K, A) float32, log-probability of each token.
    """

    actions: Tensor
    tokens: Tensor
    log_probs: Tensor


@dataclass
class TokenLogProbs:
    """How likely a policy finds given tokens.

    Attributes:
        log_probs: (N, K, A) float32, log-probability of each token.
        entropy: (N, K, A) float32, entropy of each token's distribution, nats.
    """

    log_probs: Tensor
    entropy: Tensor


class ActionTokenizer:
    """Actions in [-1, 1] to and from `bins` tokens with evenly spaced centres, the outer two exactly at -1 and 1.

    With an odd number of bins 0 is a centre too. Centres are 2 / (bins - 1) apart, 0.0625 for the default 33, so a
    round trip moves an action by at most half of that.

    Args:
        bins: Number of tokens, at least 2.
    """

    def __init__(self, bins: int = 33) -> None:
        if bins < 2:
            raise ValueError(f"bins is {bins}, at least 2 are needed")
        self.bins = bins

    def encode(self, actions: Tensor) -> Tensor:
        """The token whose centre is nearest: (...) float, clipped to [-1, 1] -> (...) int64 in [0, bins)."""
        return ((actions.clamp(-1, 1) + 1) * (0.5 * (self.bins - 1))).round().long()

    def decode(self, tokens: Tensor) -> Tensor:
        """The centre of each token's bin: (...) int64 -> (...) float32 in [-1, 1]."""
        return tokens.to(torch.float32) * (2 / (self.bins - 1)) - 1

    def targets(self, actions: Tensor, smoothing: float) -> Tensor:
        """Target distributions for cross-entropy.

        Args:
            actions: (...) float in [-1, 1].
            smoothing: Standard deviation of a Gaussian around the action, in units of the action, whose value at the
                centres is normalised to a distribution; 0 for all mass on the nearest bin.

        Returns:
            (..., bins) float32 that sums to 1.
        """
        if smoothing == 0:
            return torch.nn.functional.one_hot(self.encode(actions), self.bins).to(torch.float32)
        centres = self.decode(torch.arange(self.bins, device=actions.device))
        return torch.softmax(-0.5 * ((centres - actions[..., None]) / smoothing) ** 2, dim=-1)


def gumbel_noise(*shape: int, generator: torch.Generator | None = None) -> Tensor:
    """Standard Gumbel noise, drawn on the CPU: adding it to log-probabilities makes their argmax a sample.

    Args:
        shape: Shape of the result, (N, K, A, bins) for `Policy.act`.
        generator: A seeded CPU generator; None for torch's own.

    Returns:
        (*shape) float32.
    """
    exponential = torch.empty(shape).exponential_(generator=generator)
    return -exponential.clamp_(min=torch.finfo(torch.float32).tiny).log()


def image_tensor(image: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Images as they travel to images as networks take them.

    Args:
        image: (N, H, W, 3) uint8.
        device: Where the result is wanted.

    Returns:
        (N, 3, H, W) float32 in [-1, 1], channels last in memory.

    Raises:
        UserError: Another shape or dtype.
    """
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.ascontiguousarray(image))
    if image.ndim != 4 or image.shape[-1] != 3 or image.dtype != torch.uint8:
        raise UserError(
            f"images have shape {tuple(image.shape)} and type {image.dtype}, a policy takes (N, H, W, 3) uint8",
            "check the environment's observation",
        )
    return image.to(device).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1


class Policy(Network, ABC):
    """A vision-language-action policy over discrete action tokens.

    A subclass implements `logits` and passes on the three numbers below.

    Args:
        chunk: Actions of a chunk, K.
        action_dim: Dimensions of an action, A; in a training null is what the episodes have.
        bins: Tokens an action dimension is cut into.
        proprio_dim: Numbers of proprioception that it looks at, P; 0 for none. In a training null is what the episodes
            have.

    Attributes:
        proprio_mean: (P,) float32, subtracted from proprioception.
        proprio_spread: (P,) float32, what it is then divided by; all 0 before `fit_proprio`.
        for_rl: Names of weights that only reinforcement learning changes, and cloning leaves alone.
    """

    kind: ClassVar[str] = "policy"
    for_rl: ClassVar[frozenset[str]] = frozenset()

    proprio_mean: Tensor
    proprio_spread: Tensor

    def __init__(
        self, chunk: int = CHUNK, action_dim: int | None = 4, bins: int = 33, proprio_dim: int | None = 0
    ) -> None:
        super().__init__()
        self.chunk = chunk
        self.action_dim = known("action_dim", action_dim)
        self.bins = bins
        self.tokenizer = ActionTokenizer(bins)
        self.proprio_dim = 0
        self.take_proprio(proprio_dim)

    def take_proprio(self, dim: int | None) -> None:
        """Look at so many numbers of proprioception.

        Args:
            dim: P; 0 for none.

        Raises:
            UserError: It is null or negative.
        """
        check_least("proprio_dim", dim, 0)
        self.proprio_dim = known("proprio_dim", dim)
        if self.proprio_dim:
            self.register_buffer("proprio_mean", torch.zeros(self.proprio_dim))
            self.register_buffer("proprio_spread", torch.zeros(self.proprio_dim))

    def fit_proprio(self, mean: Tensor, spread: Tensor) -> None:
        """Take the statistics of the demonstrations; a policy that has some already, from a checkpoint, keeps them.

        Args:
            mean: (P,) float.
            spread: (P,) float, above 0.
        """
        if not self.proprio_spread.any():
            self.proprio_mean.copy_(mean)
            self.proprio_spread.copy_(spread)

    def split_weights(self, prefixes: Sequence[str]) -> dict[str, list[nn.Parameter]]:
        """The weights by the first of `prefixes` that their names begin with; those of none under the empty one.

        Raises:
            UserError: No weight's name begins with one of them.
        """
        found: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in (*prefixes, "")}
        names = [name for name, _ in self.named_parameters()]
        for name, parameter in self.named_parameters():
            found[next(prefix for prefix in found if name.startswith(prefix))].append(parameter)
        for prefix in prefixes:
            if not found[prefix]:
                parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
                raise UserError(f"part_lr: no weight of the policy begins with '{prefix}'", f"its parts are {parts}")
        return found

    @property
    def layers(self) -> Sequence[nn.Module]:
        """Repeated parts, in order: what is shared out over processes piece by piece."""
        return ()

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights as the network is made, in which it computes."""
        return next(self.parameters()).dtype

    def merge_adapters(self) -> None:
        """Put low-rank adapters into the weights that they stand beside, so that all weights can be trained."""

    @abstractmethod
    def logits(self, image: Tensor, instruction: Sequence[str], proprio: Tensor | None = None) -> Tensor:
        """Unnormalised log-probabilities of every token.

        Args:
            image: (N, 3, H, W) float in [-1, 1].
            instruction: N sentences.
            proprio: (N, P) float32, normalised; None without `proprio_dim`.

        Returns:
            (N, K, A, bins) float.
        """

    def forward(
        self,
        image: np.ndarray | Tensor,
        instruction: Sequence[str],
        temperature: float = 1.0,
        proprio: np.ndarray | Tensor | None = None,
    ) -> Tensor:
        """Log-probabilities of every token.

        Args:
            image: (N, H, W, 3) uint8.
            instruction: N sentences.
            temperature: Divides the logits, above 0.
            proprio: (N, P) float, in the robot's units; not looked at without `proprio_dim`.

        Returns:
            (N, K, A, bins) float32.

        Raises:
            UserError: Images of a size or type the policy cannot take, proprioception that is missing or of another
                size, or a temperature that is not above 0.
        """
        if not temperature > 0:
            raise UserError(f"temperature is {temperature}", "give one above 0, or 0 to act greedily")
        pictures = image_tensor(image, next(self.parameters()).device)
        if self.proprio_dim:
            logits = self.logits(pictures, instruction, self._normalised(proprio))
        else:
            logits = self.logits(pictures, instruction)
        return torch.log_softmax(logits.float() / temperature, dim=-1)

    @torch.no_grad()
    def act(
        self,
        observation: Observation,
        *,
        temperature: float = 1.0,
        noise: Tensor | None = None,
        coherence: float = 0.0,
        latent: Tensor | None = None,
    ) -> ActionChunk:
        """Choose a chunk of actions.

        Args:
            observation: What N environments show; images as numpy or torch uint8, proprioception as either.
            temperature: Divides the logits; 0 takes the likeliest token and reports log-probabilities at temperature 1.
            noise: (N, K, A, bins) standard Gumbel noise (`gumbel_noise`): the same noise gives the same tokens. None to
                draw it from torch's generator. Not used at temperature 0.
            coherence: How far the tokens of a chunk are drawn alike, see `wovr.functional.coherent`; 0 for
                independently.
            latent: (N, A) int64, which of `latent_nodes` each row and dimension has; None to draw it from torch's
                generator. Not used without coherence or at temperature 0.

        Raises:
            UserError: Images of a size or type the policy cannot take, or a negative temperature.
        """
        log_distribution = self(
            observation.image, observation.instruction, temperature or 1.0, proprio=observation.proprio
        )
        if temperature == 0:
            tokens = log_distribution.argmax(-1)
        else:
            if noise is None:
                noise = gumbel_noise(*log_distribution.shape)
            drawn_from = log_distribution
            if coherence:
                nodes, log_weights = latent_nodes(coherence, log_distribution.device)
                if latent is None:
                    rows = len(log_distribution)
                    drawn = torch.multinomial(log_weights.exp(), rows * self.action_dim, replacement=True)
                    latent = drawn.view(rows, self.action_dim)
                drawn_from = tilted(log_distribution, self._centres(log_distribution), nodes[latent.to(nodes.device)])
            tokens = (drawn_from + noise.to(log_distribution.device)).argmax(-1)
        log_probs = self._token_log_probs(log_distribution, tokens, coherence if temperature else 0.0)
        return ActionChunk(self.tokenizer.decode(tokens), tokens, log_probs)

    def log_prob(
        self,
        observation: Observation,
        tokens: Tensor | np.ndarray,
        *,
        temperature: float = 1.0,
        coherence: float = 0.0,
        summed: Tensor | None = None,
    ) -> TokenLogProbs:
        """Log-probabilities of given tokens, with gradients.

        Args:
            observation: What N environments showed.
            tokens: (N, K, A) int64 in [0, bins).
            temperature: That of `act`, above 0.
            coherence: That of `act`.
            summed: (N, K) bool, steps whose tokens are taken together: what is said of each of a dimension's tokens
                is then the log-probability of their sum, see `wovr.functional.chunk_sums`. None for each by itself.

        Raises:
            UserError: Images of a size or type the policy cannot take, or a temperature that is not above 0.
        """
        log_distribution = self(observation.image, observation.instruction, temperature, proprio=observation.proprio)
        tokens = torch.as_tensor(tokens, device=log_distribution.device)
        entropy = -(log_distribution.exp() * log_distribution).sum(-1)
        if summed is None:
            return TokenLogProbs(self._token_log_probs(log_distribution, tokens, coherence), entropy)
        centres = self._centres(log_distribution)
        of_sums = sum_log_probs(log_distribution, centres, tokens, summed.to(tokens.device), coherence)  # (N, A)
        return TokenLogProbs(of_sums[:, None].expand(-1, self.chunk, -1), entropy)

    def _normalised(self, proprio: np.ndarray | Tensor | None) -> Tensor:
        """(N, P) in the robot's units -> (N, P) float32 of about unit spread, within MOST_SPREADS."""
        if proprio is None or proprio.ndim != 2 or proprio.shape[1] != self.proprio_dim:
            there = "there is none" if proprio is None else f"there are {tuple(proprio.shape)}"
            raise UserError(
                f"the policy takes {self.proprio_dim} numbers of proprioception, {there}",
                "use episodes and environments of the robot it was trained on",
            )
        given = torch.as_tensor(proprio, device=self.proprio_mean.device, dtype=torch.float32)
        return ((given - self.proprio_mean) / self.proprio_spread).clamp(-MOST_SPREADS, MOST_SPREADS)

    def _token_log_probs(self, log_distribution: Tensor, tokens: Tensor, coherence: float) -> Tensor:
        """Log-probability of each token: (N, K, A, bins) and (N, K, A) -> (N, K, A)."""
        if coherence:
            return coherent_log_probs(log_distribution, self._centres(log_distribution), tokens, coherence)
        return log_distribution.gather(-1, tokens[..., None]).squeeze(-1)

    def _centres(self, like: Tensor) -> Tensor:
        """(bins,) what each token means, of the type and on the device of `like`."""
        return self.tokenizer.decode(torch.arange(self.bins, device=like.device)).to(like.dtype)
