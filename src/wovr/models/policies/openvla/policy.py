"""OpenVLA-OFT (paper section 5: the policy that WoVR improves) behind the policy contract, with action tokens.

Two vision transformers look at one picture, a projector makes words of their patches, and a Llama decodes the K x A
tokens of a chunk in one pass. Where it comes from: "Fine-Tuning Vision-Language-Action Models: Optimizing Speed and
Success", arXiv 2502.19645, in the form without a continuous head, which is what RL needs. The differences: tokens are
chosen among the 256 that mean actions, not among all words, in training too; pictures are resized without a JPEG in
between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wovr.errors import UserError
from wovr.models.policies.base import Policy
from wovr.models.policies.openvla.actions import Gripper, OpenVLATokenizer
from wovr.models.policies.openvla.language import Prompts, decode, make_llama, read_tokenizer
from wovr.models.policies.openvla.vision import FusedVision, Projector, ProprioProjector, fit_picture
from wovr.models.policies.openvla.weights import Shape, load_released, read_shape, read_statistics
from wovr.types import CHUNK


class OpenVLAOFT(Policy):
    """OpenVLA-OFT with discrete action tokens. Takes square pictures of any size.

    Numbers that are null are those of `folder`'s config.json, or without a folder those of the released 7 B. A
    checkpoint of `wovr fit` holds all of them, the statistics and the tokenizer, and needs the folder no more.

    Args:
        folder: A released checkpoint, downloaded: config.json, tokenizer, safetensors. Null for random weights.
        dataset: Whose statistics undo the normalisation of the actions, e.g. `libero_spatial_no_noops`: a key of the
            folder's dataset_statistics.json or `norm_stats`. Null for actions that are in [-1, 1] as they are, as those
            of one's own data.
        gripper: `libero`: the checkpoint's last action dimension is 0 for closed and 1 for open, the environment's -1
            for open and 1 for closed. `as_stored`: nothing special about it.
        chunk: Actions of a chunk, K.
        action_dim: Dimensions of an action, A; in a training null is what the episodes have.
        bins: Tokens an action dimension.
        center_crop: Look at the middle 90 % of the picture only: the released policies were trained on random crops.
        image_size: Side that pictures are resized to.
        timm_models: timm's names of DINOv2 and SigLIP.
        vision: For each of these, numbers in place of its own: embed_dim, depth, num_heads.
        language: Arguments of transformers' LlamaConfig.
        vocabulary: Words; the last `bins` of them stand for actions.
        tokenizer: Folder of the tokenizer (or its JSON text); null for `folder`.
        statistics: q01, q99 and mask of the actions; null for those that `dataset` names.
        dtype: Type of the weights and of the computation; probabilities and adapters are float32 always.
        gradient_checkpointing: Compute activations again in the backward pass instead of keeping them.
        lora_rank: Train low-rank adapters of this rank on all linear layers instead of all weights; needs the package
            peft. 0 to train all.
        lora_alpha: Strength of the adapters; null for that of OFT, the smaller of `lora_rank` and 16.
        proprio_dim: Numbers of proprioception that it looks at, P; 0 for none, as the paper's policy. In a training
            null is what the episodes have. Their projector is OFT's, and is always trained anew: the released one is
            a pickled file, and made for a continuous head.

    Raises:
        UserError: A package is missing, or the folder lacks something, or numbers do not go together.
    """

    def __init__(
        self,
        folder: str | None = None,
        dataset: str | None = None,
        gripper: Gripper = "as_stored",
        chunk: int = CHUNK,
        action_dim: int | None = 7,
        bins: int | None = None,
        center_crop: bool = True,
        image_size: int | None = None,
        timm_models: Sequence[str] | None = None,
        vision: Sequence[dict[str, Any]] | None = None,
        language: dict[str, Any] | None = None,
        vocabulary: int | None = None,
        tokenizer: str | None = None,
        statistics: dict[str, list[Any]] | None = None,
        dtype: Literal["float32", "bfloat16"] = "bfloat16",
        gradient_checkpointing: bool = False,
        lora_rank: int = 0,
        lora_alpha: float | None = None,
        proprio_dim: int | None = 0,
    ) -> None:
        shape = Shape(language={"vocab_size": 32064}) if folder is None else read_shape(Path(folder))
        bins = shape.bins if bins is None else bins
        super().__init__(chunk, action_dim, bins)
        if statistics is None and dataset is not None:
            if folder is None:
                raise UserError(f"dataset is '{dataset}' and folder null", "give the folder that has its statistics")
            statistics = read_statistics(Path(folder), dataset)
        source = tokenizer or folder
        if source is None:
            raise UserError("tokenizer and folder are both null", "give the folder of Llama's tokenizer as tokenizer")
        if lora_rank < 0 or (lora_alpha is not None and not lora_rank):
            raise UserError(
                f"lora_rank is {lora_rank}, lora_alpha {lora_alpha}", "give a rank above 0, or 0 and no alpha"
            )
        text = read_tokenizer(source)
        size = shape.image_size if image_size is None else image_size
        models = list(timm_models or shape.timm_models)
        llama = dict(language or shape.language or {})
        words = shape.vocabulary if vocabulary is None else vocabulary
        self.tokenizer = OpenVLATokenizer(bins, self.action_dim, statistics, gripper)
        self.prompts = Prompts(text, words)
        self.center_crop, self.image_size, self.vocabulary = center_crop, size, words
        self.gradient_checkpointing = gradient_checkpointing

        # Without memory first: billions of random numbers would be drawn to be thrown away.
        device = torch.empty(0).device
        with torch.device("meta"):
            self.vision_backbone = FusedVision(models, size, vision, gradient_checkpointing)
            self.language_model = make_llama(llama)
            self.projector = Projector(self.vision_backbone.width, self.language_model.config.hidden_size)
        if not bins <= words <= self.language_model.config.vocab_size:
            raise UserError(
                f"vocabulary is {words}, bins {bins}, language.vocab_size {self.language_model.config.vocab_size}",
                "give a vocabulary between the two",
            )
        self.to(getattr(torch, dtype))
        if folder is not None:
            load_released(self, Path(folder))
        elif device.type != "meta":
            self.to_empty(device=device)
            self._draw_weights()
        if lora_rank:
            self._add_adapters(lora_rank, min(lora_rank, 16) if lora_alpha is None else lora_alpha)
        # Last: it is in no released checkpoint, is trained beside adapters too, and in float32, as they are.
        self.take_proprio(proprio_dim)
        if self.proprio_dim:
            self.proprio_projector = ProprioProjector(self.proprio_dim, self.language_model.config.hidden_size)
        # What a checkpoint is rebuilt from: everything that was read from the folder, and no longer the folder.
        self.init_args |= {
            **{"folder": None, "dataset": dataset, "statistics": statistics, "tokenizer": text, "bins": bins},
            **{"image_size": size, "timm_models": models, "language": llama, "vocabulary": words},
        }

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        """See `Network.check_arguments`: nothing is read from a folder, and timm is given numbers only."""
        if arguments.get("folder") is not None:
            raise ValueError("folder is given, which is never opened")
        text = arguments.get("tokenizer")
        if not isinstance(text, str) or not text.lstrip().startswith("{"):
            raise ValueError("tokenizer is no JSON text, and no folder is opened for it")
        for numbers in arguments.get("vision") or ():
            for name, number in numbers.items():
                if name not in ("embed_dim", "depth", "num_heads") or type(number) is not int:
                    raise ValueError(f"vision: {name[:40]} is none of the numbers embed_dim, depth, num_heads")

    def logits(self, image: Tensor, instruction: Sequence[str], proprio: Tensor | None = None) -> Tensor:
        """See `Policy.logits`.

        Raises:
            UserError: The pictures are not square.
        """
        picture = fit_picture(image, self.image_size, self.center_crop)
        patches = self.projector(self.vision_backbone(picture))  # (N, P, D)
        if proprio is not None:
            token = self.proprio_projector(proprio)[:, None].to(patches.dtype)  # (N, 1, D)
            patches = torch.cat([patches, token], dim=1)  # (N, P + 1, D)
        prompts = [self.prompts(sentence) for sentence in instruction]
        slots = self.chunk * self.action_dim
        x = decode(self.language_model, patches, prompts, slots, self.prompts.end, self.gradient_checkpointing)
        # Only the words that mean actions, from the vocabulary's last, which is the lowest action, downwards.
        head = self.language_model.lm_head.weight[self.vocabulary - self.bins : self.vocabulary].flip(0)  # (bins, D)
        return (x @ head.T).unflatten(1, (self.chunk, self.action_dim))  # (N, K, A, bins)

    @property
    def layers(self) -> Sequence[nn.Module]:
        """See `Policy.layers`: those of the Llama, and the blocks of both vision transformers that are computed."""
        vision = self.vision_backbone
        blocks = [*vision.featurizer.blocks[:-1], *vision.fused_featurizer.blocks[:-1]]
        return [*self.language_model.model.layers, *blocks]

    def merge_adapters(self) -> None:
        """See `Policy.merge_adapters`; what is never computed stays untrained."""
        if not self.init_args["lora_rank"]:
            return
        from peft.tuners.tuners_utils import BaseTunerLayer

        adapted = [(name, module) for name, module in self.named_modules() if isinstance(module, BaseTunerLayer)]
        for name, module in adapted:
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(self.get_submodule(parent), child, module.get_base_layer())
        self.init_args |= {"lora_rank": 0, "lora_alpha": None}
        for parameter in self.parameters():
            parameter.requires_grad_(True)
        self.vision_backbone.freeze_unused()

    @torch.no_grad()
    def _draw_weights(self) -> None:
        """Random weights as small as Llama's; norms are 1, biases 0, DINOv2's layer scale as at its own beginning."""
        for name, parameter in self.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(1e-5)
            elif parameter.ndim > 1:
                parameter.normal_(std=0.02)
            else:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)

    def _add_adapters(self, rank: int, alpha: float) -> None:
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise UserError("lora_rank needs the package peft", "pip install 'wovr[lora]'") from error
        # The action words' head stays as it is, and what is not computed has nothing to learn.
        targets = [
            name
            for name, module in self.named_modules()
            if isinstance(module, nn.Linear) and "lm_head" not in name and module.weight.requires_grad
        ]
        inject_adapter_in_model(
            LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, init_lora_weights="gaussian"), self
        )
        for name, parameter in self.named_parameters():
            parameter.requires_grad_("lora_" in name)
            if "lora_" in name:
                # In bf16 a step of the size of RL's learning rates would be rounded away.
                parameter.data = parameter.data.float()
