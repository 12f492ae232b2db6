"""H.264 in and out: quality, sizes, seeking, determinism, damage."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tests.data.synthetic import tabletop_frames
from wovr.data.store.video import GOP, decode_pieces, decode_video, encode_video, video_shape


def psnr(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(T,) dB, of each frame."""
    error = np.square(one.astype(float) - other).mean(axis=(1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(error, 1e-9))


def packets(data: bytes) -> list[tuple[int, int, bool]]:
    """(offset, size, is key frame) of each coded frame."""
    with av.open(io.BytesIO(data)) as container:
        return [(packet.pos, packet.size, packet.is_keyframe) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("seed", range(3))
def test_round_trip_is_above_38_db_in_every_frame(seed: int) -> None:
    frames = tabletop_frames(48, seed=seed)
    video = encode_video(frames, 10.0)
    quality = psnr(frames, decode_video(video))
    assert quality.min() > 38
    assert quality.mean() > 42
    assert len(video) < 800 * len(frames)  # a tenth of the raw 12,288 would not be worth a codec


def test_a_cube_of_four_pixels_keeps_its_colour() -> None:
    frames = np.full((8, 64, 64, 3), 180, np.uint8)
    frames[:, 31:33, 31:33] = [230, 10, 10]
    decoded = decode_video(encode_video(frames, 10.0))[:, 31:33, 31:33].astype(int)
    assert np.abs(decoded - [230, 10, 10]).max() < 25  # with 4:2:0 it is 127


def test_black_and_white_keep_their_full_range() -> None:
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    frames[:, :, 16:] = 255
    decoded = decode_video(encode_video(frames, 10.0))
    assert decoded[:, :, :12].max() <= 3
    assert decoded[:, :, 20:].min() >= 252


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (63, 65), (48, 33), (2, 130)])
@pytest.mark.parametrize("fps", [10.0, 29.97, 1 / 3])
def test_any_size_and_frame_rate(size: tuple[int, int], fps: float) -> None:
    frames = tabletop_frames(19, size)
    video = encode_video(frames, fps)
    assert video_shape(video) == (19, *size)
    whole = decode_video(video)
    assert whole.shape == frames.shape
    assert psnr(frames, whole).mean() > 34
    for start in range(19):
        np.testing.assert_array_equal(decode_video(video, start, min(19, start + 5)), whole[start : start + 5])


def test_the_same_frames_give_the_same_bytes_in_another_process() -> None:
    script = (
        "import sys; from tests.data.synthetic import tabletop_frames; from wovr.data.store.video import encode_video\n"
        "sys.stdout.buffer.write(encode_video(tabletop_frames(20), 10.0))"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    assert encode_video(tabletop_frames(20), 10.0) == other


def test_quality_does_not_depend_on_the_frame_rate() -> None:
    frames = tabletop_frames(24)
    np.testing.assert_array_equal(decode_video(encode_video(frames, 5.0)), decode_video(encode_video(frames, 240.0)))


def test_every_eighth_frame_is_a_key_frame() -> None:
    keys = [index for index, (_, _, key) in enumerate(packets(encode_video(tabletop_frames(40), 10.0))) if key]
    assert keys == list(range(0, 40, GOP))


@pytest.mark.parametrize("start", [0, 7, 8, 20, 43, 50])
def test_seeking_decodes_nothing_but_the_groups_it_needs(start: int) -> None:
    video = encode_video(tabletop_frames(64), 10.0)
    stop = start + 13
    expected = decode_video(video)[start:stop]
    broken = bytearray(video)
    for index, (offset, size, _) in enumerate(packets(video)):
        if not start // GOP * GOP <= index < stop and index >= GOP:  # the first group is probed when a file is opened
            broken[offset : offset + size] = bytes(size)
    np.testing.assert_array_equal(decode_video(bytes(broken), start, stop), expected)
    with pytest.raises(ValueError, match="not a readable video"):
        decode_video(bytes(broken))


def test_several_pieces_of_one_file() -> None:
    video = encode_video(tabletop_frames(30), 10.0)
    whole = decode_video(video)
    for piece, (start, stop) in zip(
        decode_pieces(video, [(20, 30), (0, 1), (3, 16)]), [(20, 30), (0, 1), (3, 16)], strict=True
    ):
        np.testing.assert_array_equal(piece, whole[start:stop])


@pytest.mark.parametrize("options", [{"bf": "3", "g": "30"}, {"bf": "0", "g": "12"}], ids=["b-frames", "plain"])
def test_other_peoples_420_video_is_cut_at_the_right_frame(options: dict[str, str]) -> None:
    frames = tabletop_frames(50)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=20, options=options | {"x264-params": "log=-1"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    video = buffer.getvalue()
    whole = decode_video(video)
    assert psnr(frames, whole).mean() > 28
    for start in range(0, 40, 7):
        np.testing.assert_array_equal(decode_video(video, start, start + 9), whole[start : start + 9])


@pytest.mark.parametrize(
    ("frames", "fps"),
    [
        (np.zeros((3, 8, 8), np.uint8), 10.0),
        (np.zeros((3, 8, 8, 3), np.float32), 10.0),
        (np.zeros((0, 8, 8, 3), np.uint8), 10.0),
        (np.zeros((3, 8, 8, 3), np.uint8), 0.0),
        (np.zeros((3, 8, 8, 3), np.uint8), float("nan")),
    ],
)
def test_what_is_no_video_is_not_encoded(frames: np.ndarray, fps: float) -> None:
    with pytest.raises(ValueError, match="frame"):
        encode_video(frames, fps)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 3), (5, 11), (10, None)])
def test_frames_that_are_not_there(start: int, stop: int | None) -> None:
    with pytest.raises(ValueError, match="the video has 10"):
        decode_video(encode_video(tabletop_frames(10), 10.0), start, stop)


@pytest.mark.parametrize("cut", [0, 3, 300, -300])
def test_damaged_bytes_are_an_error(cut: int) -> None:
    with pytest.raises(ValueError, match="not a readable video"):
        decode_video(encode_video(tabletop_frames(10), 10.0)[:cut])


def test_other_codecs_and_playlists_are_no_videos(tmp_path: Path) -> None:
    video = encode_video(tabletop_frames(10), 10.0)
    assert b"avc1" in video
    with pytest.raises(ValueError, match="of no known codec"):
        decode_video(video.replace(b"avc1", b"zzzz"))
    (tmp_path / "other.mp4").write_bytes(video)
    playlist = f"ffconcat version 1.0\nfile {tmp_path / 'other.mp4'}\n"
    with pytest.raises(ValueError, match="not a readable video"):
        decode_video(playlist.encode())
