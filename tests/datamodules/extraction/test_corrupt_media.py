"""Corrupt files: no crash of a decoder, no hang, no flood of memory, nothing but features or reasons."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.datamodules.extraction.media_files import face_picture, voice, write_video, write_wav

ROOT = Path(__file__).parents[3]
MOST_MEMORY = 1500
"""MiB; a good file takes 250."""


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each kind, a second of a face and a voice."""
    folder = tmp_path_factory.mktemp("kinds")
    pictures = [face_picture(120, 160, 20, 110)] * 12
    for name, codec, sound_codec in [
        ("a.avi", "mpeg4", "pcm_s16le"),
        ("b.mp4", "mpeg4", "aac"),
        ("c.mkv", "ffv1", "flac"),
        ("d.mp4", "libx264", "aac"),
        ("e.webm", "libvpx", "libopus"),
        ("f.mpg", "mpeg2video", "mp2"),
        ("g.mov", "mjpeg", "pcm_s16be"),
        ("h.ts", "libx264", "aac"),
    ]:
        rate = 48_000 if sound_codec == "libopus" else 16_000
        pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        write_video(folder / name, pictures, 12, voice(1.0, rate), rate, codec, sound_codec=sound_codec, pixels=pixels)
    write_wav(folder / "i.wav", voice(1.0))
    return folder


def extract(folder: Path, first: int, last: int, timeout: float) -> None:
    words = [sys.executable, "-X", "faulthandler", "-m", "tests.datamodules.extraction.corrupt"]
    words += [str(folder), str(first), str(last)]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=timeout, check=False)
    lines = ended.stdout.splitlines() or ["nothing"]
    assert ended.returncode == 0, f"after {lines[-1]}: exit code {ended.returncode}\n{ended.stderr[-2000:]}"
    assert lines[-1].startswith("done") and len(lines) == last - first + 1
    memory = int(lines[-1].split()[-1])
    assert memory < MOST_MEMORY
    assert memory > 0 or sys.platform != "linux"
    assert "'audio': " in lines[-1] and "'visual': " in lines[-1]  # some are still readable


def test_126_corrupt_files(sound_files: Path) -> None:
    extract(sound_files, 0, 126, timeout=120)


@pytest.mark.slow
def test_3000_corrupt_files(sound_files: Path) -> None:
    extract(sound_files, 1000, 4000, timeout=1800)
