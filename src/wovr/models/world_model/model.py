"""The world model (paper, section 4.1): context in, the frames that a chunk of actions produces out.

The clip that a backbone sees is [reference, memory, new] in latent frames. What is unlike the authors' model, each an
argument: a network may predict the clean latents instead of the velocity, and blend copied pixels into them; memory
noise may be drawn from a range and told to the network; the reference may stand at its real distance in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from wovr.functional import flow
from wovr.functional.images import frames_to_float, frames_to_uint8
from wovr.models.checkpoint import Network
from wovr.models.robot.model import RobotModel
from wovr.models.world_model.assembly import (
    check_backbone,
    check_compiler,
    check_numbers,
    make_copy_head,
    make_follow_head,
)
from wovr.models.world_model.autoencoders.base import FRAMES_PER_LATENT, Autoencoder
from wovr.models.world_model.backbones.base import Backbone
from wovr.models.world_model.context import (
    Context,
    EncodedWindow,
    beside,
    check_proprio,
    fill_memory,
    token_positions,
    with_states,
)
from wovr.types import CHUNK

FAR = 10**6
"""Age, in frames, of a memory whose distance from the reference is not known."""


class WorldModel(Network):
    """Autoencoder, backbone, and how they are used.

    Args:
        autoencoder: Frozen here; its weights travel in the world model's checkpoint.
        backbone: The network.
        prediction: What the backbone answers: `velocity` (noise - data) or `data` (the clean latents).
        head: `linear`: the answer as it is; `copy`: a blend, pixel by pixel, of generated colour, last memory frame and
            reference frame (only with prediction `data` and PatchAutoencoder); `follow`: of these and of the last
            memory frame moved along with the robot's hand (with a robot model and context `channels` too).
        head_hidden: With head `copy`, channels of the answer that a further layer blends from, null for none; with
            head `follow`, units of its perceptron.
        robot: A fitted robot model. The network is then told, beside each action, the proprioception it predicts and
            how far that is from where the chunk began; the backbone's action_dim is A + 2 P. Frozen here; its weights
            travel in the world model's checkpoint. Null for actions alone.
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
        sigmas: Noise levels at which the sampler asks the network, falling from 1; null for five under `shift`.
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
        head: Literal["linear", "copy", "follow"] = "linear",
        head_hidden: int | None = None,
        robot: RobotModel | None = None,
        chunk: int = CHUNK,
        memory: int = 4,
        reference: bool = True,
        context: Literal["tokens", "channels"] = "tokens",
        reference_gap: int | None = None,
        noisy_context: float | list[float] = 0.2083,
        told: bool = False,
        shift: float = 5.0,
        sigmas: list[float] | None = None,
        history: Literal["latents", "frames"] = "frames",
        neutral_action: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self.backbone = backbone
        self.robot = None if robot is None else robot.requires_grad_(False).eval()
        self.prediction = prediction
        self.chunk, self.memory = chunk, memory
        self.reference, self.reference_gap, self.context = reference, reference_gap, context
        low_high = [noisy_context] * 2 if isinstance(noisy_context, int | float) else list(noisy_context)
        self.told, self.shift = told, shift
        self.sigmas = flow.sampling_sigmas(5, shift) if sigmas is None else list(sigmas)
        self.history = history
        neutral = [0.0] * (self.action_dim - 1) + [-1.0] if neutral_action is None else neutral_action
        self.new_latents = chunk // FRAMES_PER_LATENT
        self.memory_latents = -(-memory // FRAMES_PER_LATENT)
        self.memory_slots = FRAMES_PER_LATENT * self.memory_latents
        check_numbers(self, low_high, neutral)
        self.copy_head = make_copy_head(self, head_hidden) if head == "copy" else None
        self.follow_head = make_follow_head(self, head_hidden) if head == "follow" else None
        check_backbone(self)
        self.noisy_context = low_high[0], low_high[1]
        self.register_buffer("neutral", torch.tensor(neutral, dtype=torch.float32), persistent=False)

    @property
    def action_dim(self) -> int:
        """A."""
        return self.backbone.action_dim - 2 * self.proprio_dim

    @property
    def proprio_dim(self) -> int:
        """P, numbers of the proprioception that a rollout has to begin with; 0 without a robot model."""
        return 0 if self.robot is None else self.robot.proprio_dim

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but autoencoder and robot model, which are frozen."""
        super().train(mode)
        for frozen in filter(None, (self.autoencoder, self.robot)):
            frozen.eval()
        return self

    def compile_parts(self, device: torch.device) -> None:
        """Let torch.compile make faster code of what takes the time, in place; it does so when it is first used.

        Args:
            device: Where the model is going to be used.

        Raises:
            UserError: For a CPU torch.compile writes C++, and there is no compiler.
        """
        check_compiler(device)
        self.backbone.compile_blocks()
        for head in filter(None, (self.copy_head, self.follow_head)):
            head.compile()

    def latent_shape(self, image_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(C, n, h, w) of a chunk's latents for images of (H, W): the shape of one rollout's noise.

        Raises:
            UserError: Images whose sides the autoencoder cannot take.
        """
        return self.autoencoder.latent_channels, self.new_latents, *self.autoencoder.latent_size(image_size)

    @torch.no_grad()
    def encode_context(
        self,
        reference: Tensor,
        memory: Tensor | None = None,
        memory_actions: Tensor | None = None,
        age: Tensor | None = None,
        proprio: Tensor | None = None,
    ) -> Context:
        """Encode where a rollout starts.

        Args:
            reference: (B, H, W, 3) uint8, each episode's first frame.
            memory: (B, P, H, W, 3) uint8, frames up to and including the start, any number of them; None to start at
                the reference. Of more than `memory` the last are used; if there are fewer the first is repeated.
            memory_actions: (B, P, A) float, the action that produced each of them; None for neutral ones.
            age: (B,) float, frames from the reference to the last memory frame, which only `reference_gap` looks at;
                None for 0 where there is no memory, and for farther than any gap where there is.
            proprio: (B, P) float, proprioception at the start; only a robot model needs it.

        Raises:
            UserError: Images whose sides the autoencoder cannot take, or no proprioception where it is needed.
        """
        if age is None:
            age = self.neutral.new_full((len(reference),), 0 if memory is None else FAR)
        memory = reference[:, None] if memory is None else memory
        if memory_actions is None:
            memory_actions = self.neutral.expand(*memory.shape[:2], -1)
        memory, actions = self._fill_memory(memory, memory_actions)
        latents = self._encode(reference, memory)
        clean = self.neutral.new_zeros(len(memory))
        begin = check_proprio(proprio, self.proprio_dim, clean)
        return Context(latents, reference, memory, actions, age.to(self.neutral), clean, begin)

    @torch.no_grad()
    def encode_window(
        self,
        frames: Tensor,
        actions: Tensor,
        known: Tensor,
        start: Tensor,
        latents: Tensor | None = None,
        proprio: Tensor | None = None,
    ) -> EncodedWindow:
        """Encode training windows.

        Args:
            frames: (B, 1 + memory_slots + K, H, W, 3) uint8, [reference | memory | new].
            actions: (B, memory_slots + K, A) float, the action that produced each memory and new frame.
            known: (B, memory_slots + K) bool, False where no action produced the frame.
            start: (B,) index of the last memory frame in its episode.
            latents: (B, 1 + m + n, C, h, w) float, the frames encoded before, where `memory` fills its slots; None to
                encode them now.
            proprio: (B, 1 + K, P) float, proprioception at the last memory frame and at each new one; only a robot
                model needs it. Of the new ones the network is told no more than what touch decides.

        Raises:
            UserError: There is no proprioception where it is needed.
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
        begin = check_proprio(None if proprio is None else proprio[:, 0], self.proprio_dim, age)
        context = Context(seen, reference[:, 0], memory, memory_actions, age, torch.zeros_like(age), begin)
        # Told the truth of what cannot be known, it draws that and not the mean of what may be.
        states = self.robot_states(context, new_actions, None if proprio is None else proprio[:, 1:])
        return EncodedWindow(context, target, new_actions, states)

    def robot_states(self, context: Context, actions: Tensor, after: Tensor | None = None) -> Tensor | None:
        """Normalised proprioception before a chunk and, predicted, after each action of it.

        Args:
            context: Before the chunk.
            actions: (B, K, A) float in [-1, 1].
            after: (B, K, P) float, true proprioception, see `RobotModel.states`; None in imagination.

        Returns:
            (B, 1 + K, P) float32; None without a robot model.
        """
        frame = context.memory[:, -1]
        return None if self.robot is None else self.robot.states(context.proprio, actions, frame, after)

    def predict(
        self, noisy: Tensor, sigma: Tensor, context: Context, actions: Tensor, states: Tensor | None = None
    ) -> Tensor:
        """What the network predicts: the velocity or the clean latents, see `prediction`.

        Args:
            noisy: (B, C, n, h, w) float, the new latent frames at noise level sigma.
            sigma: (B,) float in (0, 1].
            context: Reference and memory.
            actions: (B, K, A) float in [-1, 1].
            states: (B, 1 + K, P) float32, normalised proprioception to be told; None for `robot_states`.

        Returns:
            (B, C, n, h, w) float32.
        """
        shown = context.latents if self.reference else context.latents[:, :, 1:]
        reference, last = context.latents[:, :, 0], context.latents[:, :, -1]
        states = self.robot_states(context, actions) if states is None else states
        cues = None
        if self.follow_head is not None and self.robot is not None and states is not None:
            cues = self.follow_head.cues(self.robot, states, last)
        if self.context == "channels":
            channels = beside(shown, context.actions)
            if cues is not None and self.follow_head is not None:
                channels += self.follow_head.cue_channels(cues)
            answer = self.backbone(
                noisy,
                sigma[:, None].expand(-1, self.new_latents),
                with_states(actions, states),
                None,
                beside=channels,
                reference=False,
                new=self.new_latents,
            )
        else:
            of_reference = FRAMES_PER_LATENT if self.reference else 0
            earlier = [self.neutral.expand(len(noisy), of_reference, -1), context.actions]
            answer = self.backbone(
                torch.cat([shown, noisy], dim=2),  # (B, C, T, h, w)
                self._time(context, sigma),
                with_states(torch.cat([*earlier, actions], dim=1), states),
                token_positions(context.age, self.memory_latents, self.new_latents, self.reference_gap),
                reference=self.reference,
                new=self.new_latents,
            )
        # answer: (B, C + what the head needs, n, h, w)
        if self.follow_head is not None and cues is not None:
            return self.follow_head(answer, cues, reference, last)
        return answer.float() if self.copy_head is None else self.copy_head(answer, reference=reference, last=last)

    def velocity(
        self, noisy: Tensor, sigma: Tensor, context: Context, actions: Tensor, states: Tensor | None = None
    ) -> Tensor:
        """The velocity at `noisy`, whatever the network predicts; arguments and result as of `predict`."""
        answer = self.predict(noisy, sigma, context, actions, states)
        return answer if self.prediction == "velocity" else flow.velocity_from_clean(noisy, answer, sigma)

    @torch.no_grad()
    def imagine(
        self,
        context: Context,
        actions: Tensor,
        noise: Tensor,
        sigmas: Sequence[float] | None = None,
        states: Tensor | None = None,
    ) -> tuple[Tensor, Context]:
        """Imagine a chunk: `sample_chunk`, whose arguments these are, `decode_chunk` and `advance`.

        Returns:
            (B, K, H, W, 3) uint8, the frame that each action produced; the context of the next chunk.
        """
        states = self.robot_states(context, actions) if states is None else states
        latents = self.sample_chunk(context, actions, noise, sigmas, states)
        frames = self.decode_chunk(context, latents)
        return frames, self.advance(context, actions, latents, frames, states)

    @torch.no_grad()
    def sample_chunk(
        self,
        context: Context,
        actions: Tensor,
        noise: Tensor,
        sigmas: Sequence[float] | None = None,
        states: Tensor | None = None,
    ) -> Tensor:
        """Imagine the latents of a chunk: Euler steps from noise, the context being shown at every step.

        Args:
            context: Reference and memory.
            actions: (B, K, A) float in [-1, 1].
            noise: (B, C, n, h, w) float32, standard normal.
            sigmas: Noise levels at which to ask the network, falling from 1; None for the model's own.
            states: As of `predict`.

        Returns:
            (B, C, n, h, w) float32.
        """
        states = self.robot_states(context, actions) if states is None else states  # once, not at every step
        latents = noise
        for sigma, next_sigma in pairwise([*(self.sigmas if sigmas is None else sigmas), 0.0]):
            velocity = self.velocity(latents, latents.new_full((len(latents),), sigma), context, actions, states)
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
    def advance(
        self, context: Context, actions: Tensor, latents: Tensor, frames: Tensor, states: Tensor | None
    ) -> Context:
        """The context of the next chunk.

        Args:
            context: Of this chunk.
            actions: (B, K, A) float, of this chunk.
            latents: (B, C, n, h, w) float32, what `sample_chunk` made of them.
            frames: (B, K, H, W, 3) uint8, what `decode_chunk` made of those.
            states: (B, 1 + K, P) float32, what `robot_states` said; None without a robot model.
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
        proprio = context.proprio
        if self.robot is not None:
            assert states is not None
            proprio = self.robot.restore(states[:, -1])
        return replace(context, latents=seen.float(), memory=memory, actions=memory_actions, age=age, proprio=proprio)

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
