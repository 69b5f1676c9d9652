"""Make small invented corpora with the folders, file names and label lines of IEMOCAP and MSP-IMPROV."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datamodules.errors import InputError
from datamodules.extraction.invented import CORPORA, Options, make


def main() -> int:
    """Read the arguments and make what is asked for."""
    usual = Options()
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.extraction.invented", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("out", type=Path, help="folder to make them in")
    parser.add_argument("--corpus", choices=[*CORPORA, "all"], default="all")
    parser.add_argument(
        "--turns", type=int, default=usual.turns, help="utterances of each class by each speaker in a dialogue"
    )
    parser.add_argument(
        "--syllables", type=int, default=usual.syllables, help="at most so many in an utterance, 0.16 s each"
    )
    parser.add_argument(
        "--width", type=int, default=usual.width, help="pixels of IEMOCAP's picture (truly 720); others have half"
    )
    parser.add_argument("--defects", action="store_true", help="spoil some: no sound, face or words; a broken video")
    parser.add_argument(
        "--msp-layout", choices=["split", "flat"], default="split", help="Audio/ and Video/, or one tree"
    )
    parser.add_argument("--sessions", type=int, default=None, help="only the first so many sessions; by default all")
    parser.add_argument("--voice", choices=["synthetic", "espeak-ng"], default="synthetic")
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--overwrite", action="store_true", help="remove what is there first")
    given = vars(parser.parse_args())
    out, corpus, overwrite = (given.pop(name) for name in ("out", "corpus", "overwrite"))
    options = Options(**given)
    if options.turns < 1 or options.syllables < 2 or (options.sessions is not None and options.sessions < 1):
        parser.error("--turns and --sessions must be at least 1, --syllables at least 2")
    if options.width < 240 or options.width % 60:
        parser.error(
            "--width must be a multiple of 60 and at least 240; below 480 some faces are too small to be found"
        )
    try:
        for name in CORPORA if corpus == "all" else [corpus]:
            truth = make(out, name, options, overwrite)
            root = out / CORPORA[name][0]
            size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
            counts = f"{truth['in_four_classes']} utterances of four classes {truth['classes']}"
            print(f"{root}: {counts}, {size / 1e6:.1f} MB", flush=True)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
