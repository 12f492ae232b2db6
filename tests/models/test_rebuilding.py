"""Checkpoints made to hurt: what they name is not imported, not opened, and nothing is built larger than they are."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import wovr.models
from tests.commands.point_world import write_checkpoint
from tests.models.world_model.tiny_world import following_world, tiny_robot, tiny_world
from wovr.cli import main
from wovr.errors import UserError
from wovr.models.checkpoint import KEY, Network, check_image_size, load_network, network_fingerprint, read_checkpoint
from wovr.models.policies.base import Policy
from wovr.models.policies.openvla.policy import OpenVLAOFT
from wovr.models.policies.tiny_vla import TinyVLA
from wovr.models.probes.inverse_dynamics import InverseDynamics
from wovr.models.probes.state_probe import StateProbe
from wovr.models.rebuilding import NETWORKS
from wovr.models.reward import SuccessClassifier
from wovr.models.robot.model import RobotModel
from wovr.models.world_model.autoencoders.base import Autoencoder
from wovr.models.world_model.autoencoders.grouped import GroupedAutoencoder
from wovr.models.world_model.autoencoders.image import ImageAutoencoder
from wovr.models.world_model.autoencoders.patch import PatchAutoencoder
from wovr.models.world_model.autoencoders.wan import WanAutoencoder
from wovr.models.world_model.backbones.base import Backbone
from wovr.models.world_model.backbones.cosmos import CosmosBackbone
from wovr.models.world_model.backbones.opensora import OpenSoraBackbone
from wovr.models.world_model.backbones.wan import WanBackbone
from wovr.models.world_model.model import WorldModel


def test_the_list_is_every_network_of_the_package() -> None:
    for module in pkgutil.walk_packages(wovr.models.__path__, "wovr.models."):
        importlib.import_module(module.name)
    found, left = set(), [Network]
    while left:
        left += (below := left.pop()).__subclasses__()
        abstract = inspect.isabstract(below) or not hasattr(below, "kind") or below.__name__.startswith("Groupwise")
        if below.__module__.startswith("wovr.") and not abstract:
            found.add(f"{below.__module__}.{below.__qualname__}")
    assert found == NETWORKS


def test_no_network_opens_what_a_checkpoint_names() -> None:
    words = {
        "folder",
        "path",
        "file",
        "checkpoint",
        "source",
        "dir",
        "url",
        "weights",
        "hub",
        "tokenizer",
        "pretrained",
    }
    for class_path in NETWORKS:
        module, _, name = class_path.rpartition(".")
        network: type[Network] = getattr(importlib.import_module(module), name)
        for argument in inspect.signature(network.__init__).parameters:
            if words & set(argument.lower().split("_")):
                honest = {"tokenizer": "{}"} if argument != "tokenizer" else {}
                with pytest.raises(ValueError, match=argument):
                    network.check_arguments({**honest, argument: "/etc/hostname"})


NETWORKS_AND_KINDS: list[tuple[Callable[[], Network], type[Any]]] = [
    (tiny_world, WorldModel),
    (following_world, WorldModel),
    (tiny_robot, RobotModel),
    (lambda: PatchAutoencoder(4), Autoencoder),
    (lambda: GroupedAutoencoder(4, 4, (8, 8)), Autoencoder),
    (lambda: WanAutoencoder(8, 8, 4, (1, 2, 2), 1, (True, True)), Autoencoder),
    (lambda: WanBackbone(4, None, 3, heads=2, head_dim=12, layers=1, ffn_dim=8, frequencies=4), Backbone),
    (lambda: WanBackbone(4, None, 3, heads=2, head_dim=12, layers=1, ffn_dim=8, frequencies=4, cross=False), Backbone),
    (lambda: OpenSoraBackbone(4, 4, 3, 3, width=8, heads=2, layers=1, frequencies=4), Backbone),
    (lambda: CosmosBackbone(4, 4, 3, 3, heads=1, head_dim=18, layers=1, lora_dim=2), Backbone),
    (lambda: ImageAutoencoder(widths=(8,), blocks=1, norm_groups=4), Autoencoder),
    (lambda: InverseDynamics(2, window=3, keypoints=4, channels=[8, 8], width=8, size=16), InverseDynamics),
    (lambda: TinyVLA(channels=(8, 8), width=16, heads=2, text_width=8), Policy),
    (lambda: SuccessClassifier(channels=(8, 8), embedding=4, width=8, tasks=[("a", 0)]), SuccessClassifier),
    (lambda: StateProbe(["red", "green"], maps=1, channels=(8, 8), width=8, size=16), StateProbe),
    (lambda: RobotModel(3, 5, width=8, touch=[3, 4]), RobotModel),
]


@pytest.mark.parametrize(("make", "kind"), NETWORKS_AND_KINDS, ids=range(len(NETWORKS_AND_KINDS)))
def test_our_own_come_back_as_they_were(tmp_path: Path, make: Callable[[], Network], kind: type[Network]) -> None:
    torch.manual_seed(0)
    network = make()
    path = write_checkpoint(tmp_path / "a.ckpt", network)
    state = torch.random.get_rng_state()
    again = load_network(path, kind)
    torch.random.set_rng_state(state)
    assert type(again) is type(network)
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
        assert again.state_dict()[name].device.type == "cpu"
    assert not [name for name, value in again.named_buffers() if value.is_meta]


def idm(path: Path) -> Path:
    torch.manual_seed(0)
    return write_checkpoint(path, InverseDynamics(2, window=3, keypoints=4, channels=[8, 8], width=8, size=16))


def changed(path: Path, change: Callable[[dict[str, Any]], Any], network: Network | None = None) -> Path:
    """A checkpoint that somebody has edited."""
    write_checkpoint(path, network or load_network(idm(path), InverseDynamics))
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def arguments(content: dict[str, Any], kind: str = "inverse_dynamics") -> dict[str, Any]:
    found: dict[str, Any] = next(iter(content[KEY]["networks"].values()))
    return found


@pytest.fixture
def peak() -> Iterator[None]:
    """Fails where Python or numpy reserves more than 64 MB."""
    tracemalloc.start()
    yield
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 64_000_000


@pytest.mark.parametrize(
    "class_path",
    [
        "trap_network.Net",
        "wovr.trap_network.Net",
        "wovr.commands.report.page.write_html",
        "wovr.models.robot.loading.load_robot_model",
        "wovr.models.world_model.autoencoders.loading.load_autoencoder",
        "wovr.models.world_model.autoencoders.wan.pretrained_wan",
        "wovr.models.policies.loading.load_policy",
        "wovr.models.world_model.model.WorldModel.__init__",
    ],
)
def test_a_class_path_outside_the_list_imports_and_opens_nothing(
    tmp_path: Path, class_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap_network.py").write_text(f"open({str(tmp_path / 'MARK')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)  # type: ignore[no-untyped-call]
    monkeypatch.setattr(wovr, "__path__", [*wovr.__path__, str(tmp_path)])
    secret = idm(tmp_path / "secret.ckpt")

    def edit(content: dict[str, Any]) -> None:
        arguments(content).update(class_path=class_path, init_args={"checkpoint": str(secret), "source": "a/b"})

    path = changed(tmp_path / "a.ckpt", edit)
    before = set(sys.modules)
    with pytest.raises(UserError, match="no network of this version and not registered"):
        load_network(path, InverseDynamics)
    assert not (tmp_path / "MARK").exists()
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folder": "SECRET"}, "folder is given"),
        ({"tokenizer": "SECRET"}, "tokenizer is no JSON text"),
        ({"vision": [{"checkpoint_path": "SECRET"}, {}], "tokenizer": "{}"}, "vision: checkpoint_path"),
        (
            {"vision": [{"pretrained_cfg": {"url": "http://x"}}, {}], "tokenizer": "{}"},
            "vision: pretrained_cfg",
        ),
    ],
)
def test_files_that_a_policy_checkpoint_names_are_not_opened(
    tmp_path: Path, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "SECRET"
    secret.mkdir()
    (secret / "config.json").write_text("{}")

    def edit(content: dict[str, Any]) -> None:
        described = content[KEY]["networks"].popitem()[1]
        init_args = {key: str(secret) if value == "SECRET" else value for key, value in change.items()}
        described |= {"class_path": f"{OpenVLAOFT.__module__}.OpenVLAOFT", "init_args": init_args}
        content[KEY]["networks"] = {"policy": described}

    opened: list[str] = []
    monkeypatch.setattr("wovr.runs.read_json", lambda path: opened.append(str(path)))
    monkeypatch.setattr("wovr.models.policies.openvla.weights.read_json", lambda path: opened.append(str(path)))
    with pytest.raises(UserError, match=message):
        load_network(changed(tmp_path / "a.ckpt", edit), Policy)
    assert opened == []


@pytest.mark.parametrize(
    "init_args",
    [
        {"width": 1 << 20},
        {"width": 1 << 23, "keypoints": 1 << 23},
        {"channels": [8] * 5_000},
        {"channels": [1 << 15, 1 << 15]},
        {"keypoints": 1 << 24, "channels": [1 << 12, 1 << 12]},
    ],
    ids=range(5),
)
@pytest.mark.usefixtures("peak")
def test_arguments_that_make_a_network_larger_than_its_weights(tmp_path: Path, init_args: dict[str, Any]) -> None:
    path = changed(tmp_path / "a.ckpt", lambda content: arguments(content)["init_args"].update(init_args))
    with pytest.raises(UserError, match=r"a.ckpt: .*(larger than the weights|another shape|lacks)"):
        load_network(path, InverseDynamics)


def test_a_policy_of_a_million_layers_is_given_up_soon(tmp_path: Path) -> None:
    policy = TinyVLA(channels=(8, 8), width=16, heads=2, text_width=8)
    path = changed(
        tmp_path / "a.ckpt", lambda content: arguments(content)["init_args"].update(layers=1_000_000), policy
    )
    with pytest.raises(UserError, match="larger than the weights"):
        load_network(path, Policy)
    assert torch.is_grad_enabled()
    assert torch.zeros(1).device.type == "cpu"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 10**30),
        ("width", "wide"),
        ("width", -8),
        ("width", None),
        ("window", 0),
        ("keypoints", 0),
        ("channels", []),
        ("channels", {"a": 1}),
        ("size", 0),
        ("size", float("nan")),
        ("action_dim", 2.5),
        ("channels", [[8], [8]]),
    ],
)
def test_arguments_of_the_wrong_kind_are_one_line(tmp_path: Path, name: str, value: Any) -> None:
    path = changed(tmp_path / "a.ckpt", lambda content: arguments(content)["init_args"].update({name: value}))
    with pytest.raises(UserError) as error:
        load_network(path, InverseDynamics)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 700


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def laughs(depth: int) -> Any:
    """A list that holds the one below ten times: small in the file, 10 ** depth values in all."""
    value: Any = ["ha"] * 10
    for _ in range(depth):
        value = [value] * 10
    return value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[KEY]["data"].update(x=laughs(12)), "more than 100000 values"),
        (lambda content: content[KEY]["data"].update(x=nested(200)), "values deeper than"),
        (lambda content: content[KEY]["data"].update({"x": 10**30}), "the number 1000"),
        (lambda content: content[KEY]["data"].update(x=torch.zeros(3)), "a Tensor"),
        (lambda content: content[KEY]["data"].update({3: 4}), "a key that is no text"),
        (lambda content: arguments(content).update(prefix=3), "incomplete"),
        (lambda content: arguments(content).update(init_args=[1]), "incomplete"),
        (lambda content: content[KEY].update(networks={"inverse_dynamics": 3}), "incomplete"),
        (
            lambda content: content["state_dict"].update(x=torch.zeros(1).expand(10**6, 10**6)),
            "more values",
        ),
        (lambda content: content["state_dict"].update(x=torch.zeros(2, 2).to_sparse()), "no plain tensor"),
        (lambda content: content["state_dict"].update(x=torch.zeros(9, device="meta")), "no plain tensor"),
        (lambda content: content["state_dict"].update({3: torch.zeros(1)}), "name is no text"),
        (lambda content: content["state_dict"].update(many_views()), "weights of"),
    ],
    ids=range(13),
)
@pytest.mark.usefixtures("peak")
def test_records_and_weights_that_are_none(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    path = changed(tmp_path / "a.ckpt", change)
    for read in (lambda: load_network(path, InverseDynamics), lambda: network_fingerprint(path, InverseDynamics)):
        with pytest.raises(UserError, match=message) as error:
            read()
        assert str(path) in str(error.value)


def many_views() -> dict[str, torch.Tensor]:
    """A hundred weights that share one storage."""
    whole = torch.zeros(10, 10_000)
    return {f"network.{number}": whole for number in range(100)}


def repacked(path: Path, **changes: Any) -> Path:
    """The archive with its parts packed, or with one of them replaced."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", changes.get("compression", zipfile.ZIP_STORED)) as archive:
        for name, data in parts.items():
            archive.writestr(name, changes["replace"](name, data) if "replace" in changes else data)
    return path


def test_a_packed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = repacked(
        idm(tmp_path / "a.ckpt"),
        compression=zipfile.ZIP_DEFLATED,
        replace=lambda name, data: data + bytes(100_000_000) if name.endswith("data.pkl") else data,
    )
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    with pytest.raises(UserError, match="not a checkpoint, or is damaged"):
        read_checkpoint(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("cut", [0, 1, 100, 2000, -1, -30, -400])
def test_cut_archives_are_one_line(tmp_path: Path, cut: int, capsys: pytest.CaptureFixture[str]) -> None:
    path = idm(tmp_path / "a.ckpt")
    path.write_bytes(path.read_bytes()[:cut])
    words = ["evaluate", "--world_model", str(path), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    (tmp_path / "dataset.json").write_text("{}")
    assert main(words) == 2
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(path)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("size", [3, "64", [64], {"a": 1}, [64, 64, 3]])
def test_a_size_of_pictures_that_is_none(tmp_path: Path, size: Any) -> None:
    path = changed(tmp_path / "a.ckpt", lambda content: content[KEY]["data"].update(image_size=size))
    with pytest.raises(UserError, match="image_size' is no height and width"):
        check_image_size(path, (64, 64), "those have")
