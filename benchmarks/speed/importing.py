"""Seconds and memory of an import, on an invented pack of CMU-MOSEI's size.

    python -m benchmarks.speed.importing
    python -m benchmarks.speed.importing --corpus CMUMOSI --sizes 1284 229 686

The pack is made in a process of its own, then imported in another, whose peak memory is taken. Most of it is pages of
the pack's memory map, which the system may take back; memory of the process's own is told apart where Linux says so.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.output import in_one_line
from datamodules.importing.invented import invented_pack, write_pack
from datamodules.importing.packs import import_pack
from datamodules.importing.published import PUBLISHED


def _make(corpus: str, form: Any, sizes: tuple[int, int, int], path: Path) -> None:
    write_pack(path, invented_pack(corpus, form, sizes))


class _Peak:
    """The most memory of its own that this process has, looked at whenever the import says how far it is, in bytes."""

    def __init__(self) -> None:
        self.own = 0

    def said(self, step: str, count: int) -> None:
        """Look."""
        status = Path("/proc/self/status")
        found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text("utf-8")) if status.exists() else None
        self.own = max(self.own, int(found[1]) * 1024 if found else 0)


def _import(corpus: str, path: Path, out: Path, answer: Any) -> None:
    peak = _Peak()
    peak.said("", 0)
    before = peak.own
    start = time.perf_counter()
    import_pack(corpus, path, out, said=peak.said)
    seconds = time.perf_counter() - start
    answer.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, peak.own, before))


def measure(corpus: str, form: Any, sizes: tuple[int, int, int], folder: Path) -> str:
    """Make a pack, import it, and say what that took.

    Args:
        corpus: a name of :data:`~datamodules.importing.published.PUBLISHED`.
        form: ``aligned`` or ``unaligned``.
        sizes: utterances of train, valid and test.
        folder: for the pack and the corpus.
    """
    context = multiprocessing.get_context("spawn")
    path = folder / "pack.pkl"
    maker = context.Process(target=_make, args=(corpus, form, sizes, path))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise RuntimeError("the pack could not be made")
    answer = context.Queue()
    worker = context.Process(target=_import, args=(corpus, path, folder / "out", answer))
    worker.start()
    worker.join()
    if worker.exitcode:
        raise RuntimeError("the pack could not be imported")
    seconds, resident, own, before = answer.get()
    size = path.stat().st_size
    written = sum(file.stat().st_size for file in (folder / "out").rglob("*") if file.is_file())
    return (
        f"{corpus} {form}, {sum(sizes)} utterances, {size / 1e9:.2f} GB in, {written / 1e9:.2f} GB out: "
        f"{seconds:.1f} s, {size / seconds / 1e6:.0f} MB/s; peak {resident / 2**20:.0f} MiB, of which at most "
        f"{own / 2**20:.0f} MiB are the process's own ({before / 2**20:.0f} MiB before it began)"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure an import."""
    summary, _, examples = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", choices=[*PUBLISHED], default="CMUMOSEI")
    parser.add_argument("--form", choices=["aligned", "unaligned"], default="aligned")
    parser.add_argument("--sizes", type=int, nargs=3, help="of train, valid and test; those of the corpus unless given")
    parser.add_argument(
        "--folder", type=Path, help="where there is room for the pack and the corpus; by default $TMPDIR"
    )
    given = parser.parse_args(argv)
    first, second, third = given.sizes or PUBLISHED[given.corpus].sizes
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        print(measure(given.corpus, given.form, (first, second, third), Path(folder)))


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
