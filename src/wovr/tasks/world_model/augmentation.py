"""What is done to training windows of a world model, so that it learns more than real episodes show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from wovr.data.training.world_model import WorldModelBatch
from wovr.models.world_model.context import EncodedWindow
from wovr.models.world_model.model import WorldModel


class WindowAugmentation(ABC):
    """Changes some windows of a batch; what is random in it comes from torch's generator.

    Attributes:
        imagines: It asks the network, so that all processes of a training would have to do so at once.
    """

    imagines: ClassVar[bool] = False

    def reach(self, model: WorldModel, cached: bool) -> int:
        """Memory frames that it needs of a window beyond those of the world model.

        Args:
            model: To be trained.
            cached: Windows come with latents that were encoded before.

        Raises:
            UserError: It cannot be had with them.
        """
        return 0

    @abstractmethod
    def __call__(self, model: WorldModel, batch: WorldModelBatch, window: EncodedWindow) -> EncodedWindow:
        """Change windows.

        Args:
            model: In training mode.
            batch: As it was loaded.
            window: The same, encoded and perhaps changed before; its memory is clean.
        """
