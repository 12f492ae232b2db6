"""The world model (paper, section 4.1): context in, the frames that a chunk of actions produces out.

The clip that a backbone sees is [reference, memory, new] in latent frames. What is unlike the authors' model, each an
argument: a network may predict the clean latents instead of the velocity, and blend copied pixels into them; memory
noise may be drawn from a range and told to the network; the reference may stand at its real distance in time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from wovr.errors import UserError
from wovr.functional import flow
from wovr.functional.images import frames_to_float, frames_to_uint8
from wovr.models.checkpoint import Network
from wovr.models.world_model.autoencoders.base import FRAMES_PER_LATENT, Autoencoder
from wovr.models.world_model.backbones.base import Backbone
from wovr.models.world_model.conditioning import Conditioning, Frame, Inputs, Setting
from wovr.models.world_model.context import (
    Context,
    EncodedWindow,
    beside,
    channels_beside,
    fill_memory,
    noise_memory,
    token_positions,
    with_told,
)
from wovr.models.world_model.heads import make_copy_head
from wovr.types import CHUNK

FAR = 10**6
"""Age, in frames, of a memory whose distance from the reference is not known."""


class WorldModel(Network):
    """Autoencoder, backbone, and how they are used.

    Args:
        autoencoder: Frozen here; its weights travel in the world model's checkpoint.
        backbone: The network; its channels are derived from all the rest, where they are not given.
        prediction: What the backbone answers: `velocity` (noise - data) or `data` (the clean latents).
        head: `linear`: the answer as it is; `copy`: a blend, pixel by pixel, of generated colour, last memory frame and
            reference frame (only with prediction `data` and PatchAutoencoder).
        head_hidden: With head `copy`, channels of the answer that a further layer blends from, null for none.
        conditioning: What the network is told and shown beyond actions and context; null for nothing.
        action_dim: Dimensions of an action, A; null for what conditioning and backbone make it. In a training null is
            what the episodes have.
        chunk: Actions of a chunk, K; a multiple of 4.
        memory: Frames of memory, M: 1 to 4, or a multiple of 4. With fewer than 4 the earliest is repeated.
        reference: Show the reference frame; false is an ablation.
        context: How reference and memory are shown: as `tokens` before the new ones, the paper's [z0, z_mem, noise]; or
            as further `channels` of the new latent frames (with the memory's actions and the place in the picture), as
            Wan's image-to-video model has it, which halves the tokens.
        reference_gap: The reference stands at its real distance in time, up to this many latent frames before the
            memory. Null: right before the memory, whatever the real distance, as the authors have it.
        noisy_context: Noise level of the memory latents in training: a number, or [lowest, highest] to draw from; 0 for
            none. The authors' is 0.2083.
        told: Tell the network the noise level of the memory latents, as their time; else it is told 0.
        shift: Of the noise levels, in training and sampling.
        sigmas: Noise levels at which the sampler asks the network, falling from 1; or how many, under `shift`; null for
            five.
        sampling_noise: Noise level that the memory latents are given in sampling, once for a chunk; 0 to show them as
            they are. Above 0 the noise of a chunk has m latent frames more, for them, after its n.
        history: What the next chunk's memory is: the `latents` carried over, or the decoded `frames` encoded again.
        neutral_action: (A,) stands for "no action" where none produced a frame; null for zeros and -1 (gripper open) in
            the last dimension.

    Attributes:
        new_latents: Latent frames of a chunk, n = K / 4.
        memory_latents: Latent frames of the memory, m.
        memory_slots: Frames that those stand for, 4 m.
    """

    kind: ClassVar[str] = "world_model"
    neutral: Tensor

    def __init__(
        self,
        autoencoder: Autoencoder,
        backbone: Backbone,
        prediction: Literal["velocity", "data"] = "velocity",
        head: Literal["linear", "copy"] = "linear",
        head_hidden: int | None = None,
        conditioning: Conditioning | None = None,
        action_dim: int | None = None,
        chunk: int = CHUNK,
        memory: int = 4,
        reference: bool = True,
        context: Literal["tokens", "channels"] = "tokens",
        reference_gap: int | None = None,
        noisy_context: float | list[float] = 0.2083,
        told: bool = False,
        shift: float = 5.0,
        sigmas: list[float] | int | None = None,
        sampling_noise: float = 0.0,
        history: Literal["latents", "frames"] = "frames",
        neutral_action: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self.backbone = backbone
        self.conditioning = Conditioning() if conditioning is None else conditioning
        self.action_dim = _choose_action_dim(action_dim, self.conditioning, backbone)
        self.prediction = prediction
        self.chunk, self.memory = chunk, memory
        self.reference, self.reference_gap, self.context = reference, reference_gap, context
        low_high = [noisy_context] * 2 if isinstance(noisy_context, int | float) else list(noisy_context)
        self.told, self.shift = told, shift
        steps = 5 if sigmas is None else sigmas
        self.sigmas = flow.sampling_sigmas(steps, shift) if isinstance(steps, int) else list(steps)
        self.sampling_noise = sampling_noise
        self.history = history
        neutral = [0.0] * (self.action_dim - 1) + [-1.0] if neutral_action is None else neutral_action
        self.new_latents = chunk // FRAMES_PER_LATENT
        self.memory_latents = -(-memory // FRAMES_PER_LATENT)
        self.memory_slots = FRAMES_PER_LATENT * self.memory_latents
        self._check_numbers(low_high, neutral)
        self.conditioning.attach(Setting(autoencoder, self.action_dim, chunk, prediction, head, reference, context))
        self.copy_head = None if head == "linear" else make_copy_head(autoencoder, prediction, reference, head_hidden)
        backbone.complete(**self._backbone_numbers())
        self.noisy_context = low_high[0], low_high[1]
        self.register_buffer("neutral", torch.tensor(neutral, dtype=torch.float32), persistent=False)

    def _check_numbers(self, noisy_context: list[float], neutral: list[float]) -> None:
        """Refuse arguments that are out of their range or contradict each other.

        Raises:
            UserError: Which, and what to give.
        """

        def refuse(problem: str, remedy: str) -> None:
            raise UserError(f"world_model: {problem}", remedy)

        if self.chunk < FRAMES_PER_LATENT or self.chunk % FRAMES_PER_LATENT:
            refuse(f"chunk is {self.chunk}", f"give a multiple of {FRAMES_PER_LATENT}")
        if self.memory < 1 or (self.memory > FRAMES_PER_LATENT and self.memory % FRAMES_PER_LATENT):
            refuse(f"memory is {self.memory}", f"give 1 to {FRAMES_PER_LATENT}, or a multiple of {FRAMES_PER_LATENT}")
        if self.memory != self.memory_slots and self.history == "latents":
            refuse(f"history is latents and memory {self.memory}", "set history to frames: latents hold four frames")
        if self.reference_gap is not None and (not self.reference or self.reference_gap <= self.memory_latents):
            refuse(
                f"reference_gap is {self.reference_gap}",
                f"give a number above {self.memory_latents}, with reference true, or null",
            )
        if self.context == "channels" and (self.told or self.reference_gap is not None):
            refuse("told and reference_gap need context tokens", "set told to false and reference_gap to null")
        if len(noisy_context) != 2 or not 0 <= noisy_context[0] <= noisy_context[1] < 1:
            refuse(f"noisy_context is {noisy_context}", "give a number, or [lowest, highest], in [0, 1)")
        if not 0 <= self.sampling_noise < 1:
            refuse(f"sampling_noise is {self.sampling_noise}", "give a number in [0, 1)")
        if self.shift <= 0:
            refuse(f"shift is {self.shift}", "give a number above 0")
        try:
            flow.check_sigmas(self.sigmas)
        except ValueError as error:
            refuse(str(error), "set sigmas to null for five")
        if len(neutral) != self.action_dim:
            refuse(
                f"neutral_action has {len(neutral)} numbers, an action {self.action_dim}",
                "give as many numbers as action_dim",
            )

    def _backbone_numbers(self) -> dict[str, int]:
        """What the parts make the backbone's channels, actions and clip."""
        channels, conditioning = self.autoencoder.latent_channels, self.conditioning
        shown = int(self.reference) + self.memory_latents
        as_channels = self.context == "channels"
        more = channels_beside(channels, shown, self.memory_slots, self.action_dim) if as_channels else 0
        answer = channels if self.copy_head is None else self.copy_head.channels
        return {
            "in_channels": channels + more + conditioning.shown_channels,
            "out_channels": answer if conditioning.answer_channels is None else conditioning.answer_channels,
            "action_dim": self.action_dim + conditioning.told_dim,
            "latent_frames": self.new_latents + (0 if as_channels else shown),
        }

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the autoencoder, which is frozen."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def compile_parts(self, device: torch.device) -> None:
        """Let torch.compile make faster code of what takes the time, in place; it does so when it is first used.

        Args:
            device: Where the model is going to be used.

        Raises:
            UserError: For a CPU torch.compile writes C++, and there is no compiler.
        """
        _check_compiler(device)
        self.backbone.compile_blocks()
        self.conditioning.compile_parts()
        if self.copy_head is not None:
            self.copy_head.compile()

    def latent_shape(self, image_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(C, n, h, w) of a chunk's latents for images of (H, W).

        Raises:
            UserError: Images whose sides the autoencoder cannot take.
        """
        return self.autoencoder.latent_channels, self.new_latents, *self.autoencoder.latent_size(image_size)

    def noise_shape(self, image_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(C, n or n + m, h, w): the noise of one rollout's chunk, with that of its memory where `sampling_noise` is.

        Raises:
            UserError: As `latent_shape`.
        """
        channels, new, height, width = self.latent_shape(image_size)
        return channels, new + (self.memory_latents if self.sampling_noise else 0), height, width

    @torch.no_grad()
    def encode_context(
        self,
        reference: Tensor,
        memory: Tensor | None = None,
        memory_actions: Tensor | None = None,
        age: Tensor | None = None,
        signals: Mapping[str, Tensor] | None = None,
    ) -> Context:
        """Encode where a rollout starts.

        Args:
            reference: (B, H, W, 3) uint8, each episode's first frame.
            memory: (B, P, H, W, 3) uint8, frames up to and including the start, any number of them; None to start at
                the reference. Of more than `memory` the last are used; if there are fewer the first is repeated.
            memory_actions: (B, P, A) float, the action that produced each of them; None for neutral ones.
            age: (B,) float, frames from the reference to the last memory frame, which only `reference_gap` looks at;
                None for 0 where there is no memory, and for farther than any gap where there is.
            signals: What else is known at the start, by name, (B, ...) float each; only a conditioning looks at it.

        Raises:
            UserError: Images whose sides the autoencoder cannot take, or a signal that is needed is missing.
        """
        if age is None:
            age = self.neutral.new_full((len(reference),), 0 if memory is None else FAR)
        memory = reference[:, None] if memory is None else memory
        if memory_actions is None:
            memory_actions = self.neutral.expand(*memory.shape[:2], -1)
        memory, actions = self._fill_memory(memory, memory_actions)
        latents = self._encode(reference, memory)
        clean = self.neutral.new_zeros(len(memory))
        state = self.conditioning.begin({name: value.to(clean) for name, value in (signals or {}).items()})
        return Context(latents, reference, memory, actions, age.to(self.neutral), clean, state)

    @torch.no_grad()
    def encode_window(
        self,
        frames: Tensor,
        actions: Tensor,
        known: Tensor,
        start: Tensor,
        latents: Tensor | None = None,
        signals: Mapping[str, Tensor] | None = None,
    ) -> EncodedWindow:
        """Encode training windows.

        Args:
            frames: (B, 1 + memory_slots + K, H, W, 3) uint8, [reference | memory | new].
            actions: (B, memory_slots + K, A) float, the action that produced each memory and new frame.
            known: (B, memory_slots + K) bool, False where no action produced the frame.
            start: (B,) index of the last memory frame in its episode.
            latents: (B, 1 + m + n, C, h, w) float, the frames encoded before, where `memory` fills its slots; None to
                encode them now.
            signals: What else is known at the last memory frame and at each new one, by name, (B, 1 + K, ...) float
                each; only a conditioning looks at it.

        Raises:
            UserError: A signal that is needed is missing.
        """
        actions = torch.where(known[..., None], actions, self.neutral)
        reference, memory, new = torch.split(frames, [1, self.memory_slots, self.chunk], dim=1)
        memory, memory_actions = self._fill_memory(memory, actions[:, : self.memory_slots])
        if latents is None:  # in one go: those of some autoencoders depend on the frames before
            encoded = self._encode(reference[:, 0], torch.cat([memory, new], dim=1))
        else:
            encoded = latents.transpose(1, 2)
        seen, target = torch.split(encoded, [1 + self.memory_latents, self.new_latents], dim=2)
        age, new_actions = start.to(self.neutral), actions[:, self.memory_slots :]
        known_too = {name: value.to(age) for name, value in (signals or {}).items()}
        state = self.conditioning.begin(
            {name: value[:, 0] for name, value in known_too.items()},
            after={name: value[:, 1:] for name, value in known_too.items()},
        )
        context = Context(seen, reference[:, 0], memory, memory_actions, age, torch.zeros_like(age), state)
        return EncodedWindow(context, target, new_actions)

    def inputs(self, context: Context, actions: Tensor) -> Inputs:
        """What the conditioning tells and shows of a chunk: (B, K, A) float actions in [-1, 1]."""
        frame = Frame(context.memory[:, -1], context.latents[:, :, -1])
        return self.conditioning.inputs(context.state, actions, frame)

    def predict(
        self, noisy: Tensor, sigma: Tensor, context: Context, actions: Tensor, inputs: Inputs | None = None
    ) -> Tensor:
        """What the network predicts: the velocity or the clean latents, see `prediction`.

        Args:
            noisy: (B, C, n, h, w) float, the new latent frames at noise level sigma.
            sigma: (B,) float in (0, 1].
            context: Reference and memory.
            actions: (B, K, A) float in [-1, 1].
            inputs: What `inputs` says of context and actions; None to ask it.

        Returns:
            (B, C, n, h, w) float32.
        """
        shown = context.latents if self.reference else context.latents[:, :, 1:]
        reference, last = context.latents[:, :, 0], context.latents[:, :, -1]
        inputs = self.inputs(context, actions) if inputs is None else inputs
        if self.context == "channels":
            answer = self.backbone(
                noisy,
                sigma[:, None].expand(-1, self.new_latents),
                with_told(actions, inputs.told),
                None,
                beside=[*beside(shown, context.actions), *inputs.shown],
                reference=False,
                new=self.new_latents,
            )
        else:
            of_reference = FRAMES_PER_LATENT if self.reference else 0
            earlier = [self.neutral.expand(len(noisy), of_reference, -1), context.actions]
            answer = self.backbone(
                torch.cat([shown, noisy], dim=2),  # (B, C, T, h, w)
                self._time(context, sigma),
                with_told(torch.cat([*earlier, actions], dim=1), inputs.told),
                token_positions(context.age, self.memory_latents, self.new_latents, self.reference_gap),
                reference=self.reference,
                new=self.new_latents,
            )
        # answer: (B, C + what the head needs, n, h, w)
        if self.copy_head is not None:
            return self.copy_head(answer, reference=reference, last=last)
        return self.conditioning.read(answer, inputs, reference, last)

    def velocity(
        self, noisy: Tensor, sigma: Tensor, context: Context, actions: Tensor, inputs: Inputs | None = None
    ) -> Tensor:
        """The velocity at `noisy`, whatever the network predicts; arguments and result as of `predict`."""
        answer = self.predict(noisy, sigma, context, actions, inputs)
        return answer if self.prediction == "velocity" else flow.velocity_from_clean(noisy, answer, sigma)

    @torch.no_grad()
    def imagine(
        self,
        context: Context,
        actions: Tensor,
        noise: Tensor,
        sigmas: Sequence[float] | None = None,
        inputs: Inputs | None = None,
    ) -> tuple[Tensor, Context]:
        """Imagine a chunk: `sample_chunk`, whose arguments these are, `decode_chunk` and `advance`.

        Returns:
            (B, K, H, W, 3) uint8, the frame that each action produced; the context of the next chunk.
        """
        inputs = self.inputs(context, actions) if inputs is None else inputs
        latents = self.sample_chunk(context, actions, noise, sigmas, inputs)
        frames = self.decode_chunk(context, latents)
        return frames, self.advance(context, actions, latents, frames, inputs)

    @torch.no_grad()
    def sample_chunk(
        self,
        context: Context,
        actions: Tensor,
        noise: Tensor,
        sigmas: Sequence[float] | None = None,
        inputs: Inputs | None = None,
    ) -> Tensor:
        """Imagine the latents of a chunk: Euler steps from noise, the context being shown at every step.

        Args:
            context: Reference and memory.
            actions: (B, K, A) float in [-1, 1].
            noise: (B, *noise_shape) float32, standard normal.
            sigmas: Noise levels at which to ask the network, falling from 1; None for the model's own.
            inputs: As of `predict`.

        Returns:
            (B, C, n, h, w) float32.
        """
        inputs = self.inputs(context, actions) if inputs is None else inputs  # once, not at every step
        latents, of_memory = noise[:, :, : self.new_latents], noise[:, :, self.new_latents :]
        if self.sampling_noise:
            context = noise_memory(context, torch.full_like(context.sigma, self.sampling_noise), of_memory)
        for sigma, next_sigma in pairwise([*(self.sigmas if sigmas is None else sigmas), 0.0]):
            velocity = self.velocity(latents, latents.new_full((len(latents),), sigma), context, actions, inputs)
            latents = flow.euler_step(latents, velocity, sigma, next_sigma)
        return latents

    @torch.no_grad()
    def decode_chunk(self, context: Context, latents: Tensor) -> Tensor:
        """Decode the latents of a chunk: (B, C, n, h, w) -> (B, K, H, W, 3) uint8."""
        reference = frames_to_float(context.reference[:, None])[:, :, 0] if self.autoencoder.uses_reference else None
        if not self.autoencoder.groupwise:
            frames = self.autoencoder.decode(torch.cat([context.latents, latents], dim=2), reference)
            return frames_to_uint8(frames[:, :, -self.chunk :])
        groups = [self.autoencoder.decode_group(group, reference) for group in latents.unbind(2)]
        return frames_to_uint8(torch.cat(groups, dim=2))

    @torch.no_grad()
    def advance(self, context: Context, actions: Tensor, latents: Tensor, frames: Tensor, inputs: Inputs) -> Context:
        """The context of the next chunk.

        Args:
            context: Of this chunk.
            actions: (B, K, A) float, of this chunk.
            latents: (B, C, n, h, w) float32, what `sample_chunk` made of them.
            frames: (B, K, H, W, 3) uint8, what `decode_chunk` made of those.
            inputs: What `inputs` said of it.
        """
        memory, memory_actions = self._fill_memory(
            torch.cat([context.memory, frames], dim=1), torch.cat([context.actions, actions], dim=1)
        )
        lead = context.latents[:, :, :1]
        if self.history == "latents":
            remembered = torch.cat([context.latents[:, :, 1:], latents], dim=2)[:, :, -self.memory_latents :]
            seen = torch.cat([lead, remembered], dim=2)
        elif self.autoencoder.groupwise:
            groups = torch.split(frames_to_float(memory), FRAMES_PER_LATENT, dim=2)
            seen = torch.cat([lead, torch.stack([self.autoencoder.encode_group(g) for g in groups], dim=2)], dim=2)
        else:
            seen = self._encode(context.reference, memory)
        age = context.age + self.chunk
        state = self.conditioning.advance(context.state, inputs)
        return replace(context, latents=seen.float(), memory=memory, actions=memory_actions, age=age, state=state)

    def _encode(self, reference: Tensor, frames: Tensor) -> Tensor:
        """(B, H, W, 3) and (B, 4 g, H, W, 3) uint8 -> (B, C, 1 + g, h, w) float32."""
        lead = reference if self.reference else frames[:, 0]
        return self.autoencoder.encode(frames_to_float(torch.cat([lead[:, None], frames], dim=1))).float()

    def _fill_memory(self, memory: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        return fill_memory(memory[:, -self.memory :], actions[:, -self.memory :], self.memory_slots, self.neutral)

    def _time(self, context: Context, sigma: Tensor) -> Tensor:
        """(B, T): 0 for the reference, 0 or (told) its own noise level for the memory, sigma for what is new."""
        clean = torch.zeros_like(sigma)
        of_memory = context.sigma if self.told else clean
        return torch.stack([clean] * self.reference + [of_memory] * self.memory_latents + [sigma] * self.new_latents, 1)


def _choose_action_dim(given: int | None, conditioning: Conditioning, backbone: Backbone) -> int:
    """Dimensions of an action: what was given, or what a part was made for.

    Raises:
        UserError: Nobody says.
    """
    if given is not None:
        return given
    if conditioning.action_dim is not None:
        return conditioning.action_dim
    if backbone.given["action_dim"] is None:
        raise UserError("world_model: action_dim is null", "give the dimensions of an action")
    return backbone.given["action_dim"] - conditioning.told_dim


def _check_compiler(device: torch.device) -> None:
    """For a CPU torch.compile writes C++.

    Raises:
        UserError: There is no compiler for it.
    """
    if device.type == "cpu":
        from torch._inductor import cpp_builder, exc

        try:
            cpp_builder.get_cpp_compiler()
        except exc.InvalidCxxCompiler as error:
            raise UserError("there is no C++ compiler, which torch.compile needs", "install g++") from error
