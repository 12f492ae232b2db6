"""Data made to hurt: what they decode to is bounded before it is decoded, and what they name stays in their folder."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.data.store import damage
from tests.data.synthetic import make_episode, write_dataset
from wovr.cli import main
from wovr.data.store.arrays import decode_array
from wovr.data.store.dataset import read_dataset
from wovr.data.store.members import MAX_TEXT, decode_episode, decode_meta, encode_episode
from wovr.data.store.reader import EpisodeStore
from wovr.data.store.shards import complete_shards
from wovr.data.store.tar_index import add_members, open_tar, scan_shard
from wovr.data.store.video import decode_video, encode_video, video_shape
from wovr.data.training.world_model import WorldModelData
from wovr.errors import UserError
from wovr.runs import write_json


def members(number: int = 0, **arguments: Any) -> dict[str, bytes]:
    """An episode of 24 frames of 32 x 32 by field."""
    return {name.split(".", 1)[1]: data for name, data in encode_episode(make_episode(number, **arguments)).items()}


def black(*shape: int) -> np.ndarray:
    return np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint8), (*shape, 3))


def in_stream_sizes(sizes: list[tuple[int, int]]) -> bytes:
    """A file whose header says the first size and whose pictures bring their own."""
    packets = []
    for height, width in sizes:
        encoder: Any = av.CodecContext.create("libx264rgb", "w")
        encoder.height, encoder.width, encoder.pix_fmt = height, width, "rgb24"
        encoder.time_base, encoder.framerate = Fraction(1, 10), Fraction(10)
        encoder.options = {"x264-params": "threads=1:bframes=0:repeat-headers=1:keyint=1:log=-1"}
        picture = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24")
        packets += [*encoder.encode(picture), *encoder.encode(None)]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264rgb", rate=10, options={"x264-params": "log=-1"})
        (stream.height, stream.width), stream.pix_fmt = sizes[0], "rgb24"
        for number, packet in enumerate(packets):
            copy = av.Packet(bytes(packet))
            copy.pts = copy.dts = number
            copy.time_base, copy.stream, copy.is_keyframe = Fraction(1, 10), stream, True
            container.mux(copy)
    return buffer.getvalue()


def test_a_small_video_of_many_large_pictures_is_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "long.mp4").write_bytes(encode_video(black(300, 640, 640), 10.0))
    (tmp_path / "large.mp4").write_bytes(encode_video(black(10, 2400, 2400), 10.0))
    (tmp_path / "hidden.mp4").write_bytes(in_stream_sizes([(16, 16), *[(2400, 2400)] * 9]))
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from tests.data.synthetic import make_episode\n"
        "from wovr.data.store.members import decode_episode, encode_episode\n"
        "own = {n.split('.', 1)[1]: d for n, d in encode_episode(make_episode(0, 10, (16, 16))).items()}\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for name in ('long', 'large', 'hidden'):\n"
        "    try:\n"
        "        decode_episode('k', own | {'frames.mp4': Path(sys.argv[1], name + '.mp4').read_bytes()}, (16, 16))\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    found = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    long, large, hidden, kilobytes = found.stdout.splitlines()
    assert long == "frames.mp4: pictures of 640 x 640, must be 16 x 16"
    assert large == "frames.mp4: pictures of 2400 x 2400, must be 16 x 16"
    assert hidden.startswith("frames.mp4: ")
    assert int(kilobytes) < 20_000


def test_a_video_of_more_frames_than_success_has_is_refused() -> None:
    video = encode_video(black(600, 32, 32), 10.0)
    with pytest.raises(ValueError, match=r"frames.mp4: 600 frames, must be 24"):
        decode_episode("k", members() | {"frames.mp4": video})


def test_pictures_beyond_every_bound_are_refused_without_a_size_to_compare() -> None:
    video = encode_video(black(1, 8, 4104), 10.0)
    with pytest.raises(ValueError, match="at most 4096"):
        decode_video(video)
    with pytest.raises(ValueError, match="at most 4096"):
        video_shape(video)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (30, 47), (3, 200), (64, 64), (129, 65)])
def test_the_bound_lets_every_honest_size_through(size: tuple[int, int]) -> None:
    assert decode_video(encode_video(black(2, *size), 10.0), image_size=size).shape == (2, *size, 3)


@pytest.mark.parametrize("kind", ["playlist", "list of files", "description"])
def test_a_video_that_names_other_files_is_none(tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(encode_video(black(24, 32, 32), 10.0))
    text = {
        "playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2.4,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "list of files": f"ffconcat version 1.0\nfile '{secret}'\n",
        "description": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    }[kind]
    for data in (text.encode(), text.encode() + bytes(4096)):
        with pytest.raises(ValueError, match="not a readable video"):
            decode_video(data)
        with pytest.raises(ValueError, match="not a readable video"):
            video_shape(data)


def header(shape: str, descr: str = "'|u1'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "data",
    [
        header("(1000000000000, 1000000000000)"),
        header("(0, 99999999999999999999999)"),
        header("(-1, -4)") + bytes(4),
        header("(True, 4)") + bytes(4),
        header("(4,)", "'|V0'"),
        header("(4,)", "'<U9'") + bytes(144),
        header("(1,)", "[('a', '<f4', (1000000000,))]"),
        header("(1,)", "'|O'") + bytes(8),
        header("(" * 3000 + ")" * 3000),
        header("(1,)" + " " * 60000),
        b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b" " * 100,
        b"\x93NUMPY\x01\x00\x10\x00{'descr': '\\\n  x",
        b"",
    ],
    ids=range(13),
)
def test_headers_of_arrays_that_are_none(data: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"^success.npy: "):
        decode_array("success.npy", data)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_success_predicate_longer_than_any_episode() -> None:
    with pytest.raises(ValueError, match="at most 512 frames"):
        decode_episode("k", members() | {"success.npy": damage.npy(np.zeros(100_000, bool))})


META = json.loads(members()["meta.json"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 10**400}, "fps is"),
        ({"fps": True}, "fps is True"),
        ({"fps": 1e-300}, "fps is 1e-300"),
        ({"task": 10**30}, "task does not fit in 64 bits"),
        ({"seed": -(10**200)}, "seed does not fit"),
        ({"instruction": "x" * (MAX_TEXT + 1)}, "instruction has 4097 characters"),
        ({"suite": ["x" * 100_000]}, "suite is"),
    ],
)
def test_absurd_meta_data(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        decode_meta(json.dumps(META | change).encode())
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": ' * 100_000, "not valid JSON"),
        (json.dumps(META).replace('"fps": 10.0', '"fps": NaN').encode(), "NaN is no number"),
        (json.dumps(META).replace('"fps": 10.0', '"fps": 10.0, "fps": 20.0').encode(), "there twice"),
        (json.dumps(META | {"extra": {"x": "y" * (1 << 20)}}).encode(), "at most 1048576 are read"),
        (json.dumps(META).replace('"fps": 10.0', '"fps": ' + "9" * 5000).encode(), "not valid JSON"),
    ],
    ids=range(6),
)
def test_meta_data_that_are_no_json(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_meta(data)


def write_raw(path: Path, infos: list[tuple[tarfile.TarInfo, bytes]], tar_format: int = tarfile.PAX_FORMAT) -> None:
    with tarfile.open(path, "w", format=tar_format) as tar:
        for info, data in infos:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def sparse(path: Path) -> None:
    """A sparse member of a terabyte, as GNU tar writes it."""
    info = entry("spatial-000000.frames.npy", tarfile.GNUTYPE_SPARSE)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:398], block[398:410] = b"00000000000\0", b"00000000000\0"
    block[483:495] = b"\x80" + (10**12).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    path.write_bytes(bytes(block) + bytes(1024))


def long_header(path: Path) -> None:
    """An extended header that says it is a terabyte long."""
    info = entry("././@PaxHeader", tarfile.XHDTYPE)
    info.size = 10**12
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))


def chain_of_headers(path: Path) -> None:
    """Extended headers that follow each other."""
    with path.open("wb") as file:
        for _ in range(20_000):
            info = entry("././@LongLink", tarfile.GNUTYPE_LONGNAME)
            info.size = 512
            file.write(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 511 + b"\0")
        file.write(bytes(1024))


def wide_header(path: Path) -> None:
    write_raw(path, [(entry("k.meta.json", pax_headers={"comment": "x" * 200_000}), b"{}")])


MEMBERS: list[tuple[Callable[[Path], Any], str]] = [
    (lambda path: write_raw(path, [(entry("../../escaped.meta.json"), b"{}")]), "is not part of the episode format"),
    (lambda path: write_raw(path, [(entry("/etc/passwd.meta.json"), b"{}")]), "is not part of"),
    (lambda path: write_raw(path, [(entry("a/b.meta.json"), b"{}")]), "is not part of"),
    (lambda path: write_raw(path, [(entry("k" * 5000 + ".meta.json"), b"{}")]), "is not part of"),
    (
        lambda path: write_raw(path, [(entry("k.meta.json", tarfile.SYMTYPE, linkname="/etc/passwd"), b"")]),
        "is not part",
    ),
    (lambda path: write_raw(path, [(entry("k.meta.json", tarfile.LNKTYPE, linkname="k.x"), b"")]), "is not part of"),
    (lambda path: write_raw(path, [(entry("k.frames.npy", tarfile.CHRTYPE), b"")]), "is not part of"),
    (lambda path: write_raw(path, [(entry("k.frames.npy", tarfile.FIFOTYPE), b"")]), "is not part of"),
    (lambda path: write_raw(path, [(entry("k.meta.json"), b"{}"), (entry("k.meta.json"), b"[]")]), "is there twice"),
    (lambda path: write_raw(path, [(entry("k.meta.json"), bytes(2 << 20))]), "meta.json has 2097152 bytes"),
    (lambda path: write_raw(path, [(entry("k.success.npy"), bytes(9999))]), "success.npy has 9999 bytes"),
    (sparse, "is not part of the episode format"),
    (long_header, "a header of 10000000"),
    (chain_of_headers, "truncated"),
    (wide_header, "a header of 200"),
    (lambda path: path.write_bytes(gzip.compress(bytes(50_000_000))), "not a tar file"),
]


@pytest.mark.parametrize(("write", "message"), MEMBERS, ids=range(len(MEMBERS)))
def test_members_that_do_not_belong_in_a_shard(tmp_path: Path, write: Callable[[Path], Any], message: str) -> None:
    path = tmp_path / "x-000000.tar"
    write(path)
    tracemalloc.start()
    with pytest.raises(UserError, match=message) as error:
        scan_shard(path)
    assert tracemalloc.get_traced_memory()[1] < 60_000_000
    tracemalloc.stop()
    assert len(str(error.value).replace(str(tmp_path), "")) < 500


def test_a_compressed_shard_is_not_unpacked_while_streaming(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", shards=2, episodes=1)
    shard = folder / "spatial-000001.tar"
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    damage.reseal(shard)
    data = WorldModelData(str(folder), val_fraction=0.0, stream=True)
    data.setup("fit")
    with pytest.raises(UserError, match="not a tar file"):
        list(data.train_dataloader())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "../spatial-000000.tar"}, "not the name of a shard"),
        ({"file": "/etc/passwd"}, "not the name of a shard"),
        ({"file": ".."}, "not the name of a shard"),
        ({"file": "a\0.tar"}, "not the name of a shard"),
        ({"file": "x" * 5000 + ".tar"}, "not the name of a shard"),
        ({"file": 3}, "not the name of a shard"),
        ({"bytes": 10**400}, "bytes is"),
        ({"frames": True}, "frames is True"),
        ({"episodes": -1}, "episodes is -1"),
        ({"sha256": "../../x"}, "not 64 hexadecimal digits"),
    ],
)
def test_shards_that_a_summary_may_not_list(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = write_dataset(tmp_path / "data", shards=1, episodes=1)
    damage.change_dataset(folder, lambda dataset: dataset["shards"][0].update(change))
    with pytest.raises(UserError, match=message):
        EpisodeStore(folder)
    with pytest.raises(UserError, match=message):
        WorldModelData(str(folder), stream=True).setup("fit")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": [10**9, 10**9]}, "image_size is"),
        ({"image_size": [0, 32]}, "image_size is 0"),
        ({"action_dim": 10**9}, "action_dim is"),
        ({"fps": 10**400}, "fps is not"),
        ({"fps": "10"}, "not a data set's summary"),
        ({"extra": []}, "extra is no object"),
        ({"shards": {"file": "x.tar"}}, "lists no shard"),
        ({"action_statistics": {}}, "action_statistics"),
    ],
)
def test_absurd_summaries(
    tmp_path: Path, change: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_dataset(tmp_path / "data", shards=1, episodes=1)
    damage.change_dataset(folder, lambda dataset: dataset.update(change))
    assert main(["data", "inspect", str(folder)]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_json_too_deep_or_too_large_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_dataset(tmp_path / "data", shards=1, episodes=1)
    (folder / "dataset.json").write_bytes(b'{"a":' * 200_000)
    with pytest.raises(UserError, match="not valid JSON"):
        read_dataset(folder)
    monkeypatch.setattr("wovr.runs.MAX_JSON", 1000)
    with pytest.raises(UserError, match="more than 1000 bytes"):
        read_dataset(folder)


def test_a_record_beside_a_shard_speaks_of_that_shard_only(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", shards=1, episodes=1)
    record: dict[str, Any] = {"file": "../../elsewhere-000000.tar", "sha256": "0" * 64, "image_size": [9, 9]}
    record |= {"bytes": (folder / "spatial-000000.tar").stat().st_size, "action_dim": 1, "fps": 1.0, "episodes": []}
    write_json(folder / ".spatial-000000.tar.json", record)
    [found] = complete_shards(folder, "spatial").values()
    assert found.file == "spatial-000000.tar"
    assert len(found.episodes) == 1


def test_lossless_frames_of_another_shape_are_refused_before_they_are_read(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", shards=1, episodes=1)
    shard = folder / "spatial-000000.tar"
    found = damage.members(shard)
    del found["spatial-000000.frames.mp4"]
    found["spatial-000000.frames.npy"] = damage.npy(np.zeros((24, 64, 64, 3), np.uint8))
    with shard.open("wb") as file, open_tar(file) as tar:
        add_members(tar, found)
    damage.reseal(shard)
    store = EpisodeStore(folder)
    with pytest.raises(UserError, match=r"frames.npy: uint8 \(24, 64, 64, 3\) .*must be uint8 \(24, 32, 32, 3\)"):
        store.frames(0)
