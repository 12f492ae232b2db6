from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wovr.errors import UserError
from wovr.metrics.networks.features import I3DClips, IDMFrames, IDMWindows, InceptionFrames
from wovr.metrics.networks.inception import FIDInception
from wovr.models.probes.inverse_dynamics import InverseDynamics


class LikeI3D(nn.Module):
    """Has the call of the published TorchScript file; its features are the means of the colours, 400 times over."""

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        assert rescale
        assert resize
        assert return_features
        assert x.shape[1] == 3
        assert x.shape[2] == 16
        return x.mean((1, 2, 3, 4))[:, None].expand(-1, 400)


def videos(count: int, length: int, size: int = 16) -> Tensor:
    return torch.randint(0, 256, (count, length, size, size, 3), dtype=torch.uint8)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_i3d_sees_clips_of_sixteen_frames_side_by_side(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(LikeI3D()), str(tmp_path / "i3d.pt"))
    frames = videos(2, 40)
    found = I3DClips(tmp_path / "i3d.pt")(frames)
    assert found.values.shape == (2, 2, 400)
    assert found.ends.tolist() == [16, 32]
    torch.testing.assert_close(found.values[1, 1, 7], frames[1, 16:32].float().mean())


def test_a_file_that_is_no_torchscript_is_refused(tmp_path: Path) -> None:
    (tmp_path / "i3d.pt").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="not a TorchScript file"):
        I3DClips(tmp_path / "i3d.pt")


def test_the_inverse_dynamics_network_sees_frames_and_windows() -> None:
    network = InverseDynamics(2, window=3, keypoints=4, channels=[8, 16], width=8, size=16).eval()
    frames = videos(2, 7)
    with torch.no_grad():
        single, windows = IDMFrames(network)(frames), IDMWindows(network)(frames)
    assert single.values.shape == (2, 6, 2 * 4 + 16)
    assert single.ends.tolist() == [2, 3, 4, 5, 6, 7], "the given frame is not scored"
    assert windows.values.shape == (2, 5, 8)
    assert windows.ends.tolist() == [3, 4, 5, 6, 7]


def test_inception_loads_a_state_dict_and_pools_as_the_original(tmp_path: Path) -> None:
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    plain = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False).eval()
    torch.save(plain.state_dict(), tmp_path / "inception.pth")
    network = FIDInception(tmp_path / "inception.pth")
    x = torch.randn(1, 192, 9, 9)
    mine, theirs = network.network.Mixed_5b(x), plain.Mixed_5b(x)
    torch.testing.assert_close(mine[:, :-32], theirs[:, :-32])
    # The pooling branch: averages over the neighbours there are, four of them in a corner.
    counts = F.avg_pool2d(torch.ones(1, 1, 9, 9), 3, 1, 1)
    expected = plain.Mixed_5b.branch_pool(F.avg_pool2d(x, 3, 1, 1) / counts)
    torch.testing.assert_close(mine[:, -32:], expected)
    last = torch.randn(1, 2048, 8, 8)
    expected = plain.Mixed_7c.branch_pool(F.max_pool2d(last, 3, 1, 1))
    torch.testing.assert_close(network.network.Mixed_7c(last)[:, -192:], expected)
    features = InceptionFrames(tmp_path / "inception.pth")
    with torch.no_grad():
        found = features(videos(1, 3, 24))
    assert found.values.shape == (1, 2, 2048)
    assert found.ends.tolist() == [2, 3]
    assert not features.network.train().network.training
