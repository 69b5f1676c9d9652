"""The measurement of an import, on a tiny pack."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.speed.importing import main


@pytest.mark.slow
def test_it_says_seconds_and_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--corpus", "CMUMOSI", "--sizes", "4", "2", "2", "--folder", str(tmp_path)])
    shown = capsys.readouterr().out
    form = (
        r"CMUMOSI aligned, 8 utterances, .* GB in, .* GB out: (.*) s, .* MB/s; peak (\d+) MiB, .* most (\d+) MiB .*\n"
    )
    found = re.fullmatch(form, shown)
    assert found is not None, shown
    assert float(found[1]) >= 0
    assert int(found[2]) >= int(found[3])
    assert not [*tmp_path.iterdir()]
