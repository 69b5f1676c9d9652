"""Extract corrupt files in a process of its own: ``python -m tests.datamodules.extraction.corrupt FOLDER FIRST LAST``.

FOLDER holds sound files. Before each case its number is printed, so that a crash of a native library is told from it;
at the end, how many modalities were found and the most memory taken, in MiB.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np

from datamodules.extraction.extractor import Reads
from datamodules.extraction.pipeline import Pipeline
from datamodules.extraction.recordings import Recording, Source
from tests.datamodules.extraction.test_pipeline import Corner, Recorder

SLOWEST = 20.0
"""Seconds that one case may take; a good file takes a fiftieth of one."""


def corrupted(data: bytes, number: int) -> bytes:
    """One of endless ways to spoil a file: cut off, bytes flipped, at its head or anywhere, zeroed, moved, repeated."""
    rng = np.random.default_rng(number)
    spoilt = np.frombuffer(data, np.uint8).copy()
    size = len(spoilt)
    way = number % 7
    if way == 0:
        return data[: int(rng.integers(1, size))]
    if way == 1:  # its head, where sizes and rates stand
        places = rng.integers(0, min(size, 600), size=int(rng.integers(1, 8)))
        spoilt[places] = rng.integers(0, 256, size=len(places))
    elif way == 2:
        places = rng.integers(0, size, size=int(rng.integers(1, 200)))
        spoilt[places] = rng.integers(0, 256, size=len(places))
    elif way == 3:  # its end, where an index may stand
        places = size - 1 - rng.integers(0, min(size, 2000), size=int(rng.integers(1, 30)))
        spoilt[places] ^= 1 << rng.integers(0, 8, size=len(places)).astype(np.uint8)
    else:
        first, last = sorted(rng.integers(0, size, size=2).tolist())
        if way == 4:
            spoilt[first:last] = 0
        elif way == 5:
            spoilt[first:last] = np.roll(spoilt[first:last], int(rng.integers(1, 9)))
        else:
            return data[:last] + data[first:]
    return spoilt.tobytes()


def main(folder: Path, first: int, last: int) -> None:
    """Extract all cases."""
    sounds = sorted(path for path in folder.iterdir() if not path.name.startswith("case"))
    extractors = {
        "audio": Recorder("audio", Reads("sound")),
        "visual": Recorder("visual", Reads("faces", side=16, grey=True)),
    }
    pipeline, found = Pipeline(extractors, Corner()), Counter[str]()
    for number in range(first, last):
        good = sounds[number % len(sounds)]
        path = folder / f"case{good.suffix}"
        path.write_bytes(corrupted(good.read_bytes(), number))
        print("case", number, good.name, flush=True)
        begin = time.monotonic()
        spans = [Source(path), Source(path, 0.2, 0.7)]
        recordings = [Recording(f"u{place}", span, span) for place, span in enumerate(spans)]
        for extracted in pipeline.extract(recordings):
            assert {*extracted.features, *extracted.absent} == {"audio", "visual"}
            assert all(why and why == " ".join(why.split()) for why in extracted.absent.values()), extracted.absent
            found.update([*extracted.features])
        for recorder in extractors.values():
            for item in recorder.given:
                values = item.samples if hasattr(item, "samples") else item.pixels
                assert values.size and np.isfinite(values).all()
            recorder.given.clear()
        assert time.monotonic() - begin < SLOWEST, f"{number}: {time.monotonic() - begin:.0f} s"
    print("done", dict(found), most_memory(), flush=True)


def most_memory() -> int:
    """MiB; the system's own count would begin with the parent's. 0 where it cannot be told."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) // 1024
    return 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
