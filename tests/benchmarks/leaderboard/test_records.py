import json
import multiprocessing
from pathlib import Path

import pytest

from benchmarks.leaderboard.records import RECORDS, Record, append, latest, locked, read_lines
from datamodules.errors import InputError

ONE, TWO, THREE = ({"model": "M", "fold": 1, "seed": seed, "identity": {"code": "é"}} for seed in range(3))


def test_survives_a_kill_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / RECORDS
    append(path, ONE)
    append(path, TWO)
    whole = path.read_bytes()
    first = len(json.dumps(ONE)) + 1
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        records, torn = read_lines(path)
        # The newline that ends a record may be missing: the record is there all the same.
        expected = [ONE] * (size >= first - 1) + [TWO] * (size >= len(whole) - 1)
        assert records == expected
        assert bool(torn) == (size not in (0, first - 1, first, len(whole) - 1, len(whole)))
        append(path, THREE)
        assert read_lines(path)[0] == [*expected, THREE]


def test_what_is_no_record_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / RECORDS
    path.write_text('[1, 2]\n{"model": "M"}\n\n', encoding="utf-8")
    append(path, ONE)
    assert read_lines(path) == ([ONE], [1, 2])


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert read_lines(tmp_path / RECORDS) == ([], [])


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append(tmp_path / RECORDS, {**ONE, "x": float("nan")})
    assert not (tmp_path / RECORDS).exists()


def _try_to_lock(board: Path) -> str:
    try:
        with locked(board):
            return "locked"
    except InputError as error:
        return str(error)


def test_a_board_is_held_by_one_process(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        with locked(tmp_path):
            assert "is working on this board" in pool.apply(_try_to_lock, (tmp_path,))
        assert pool.apply(_try_to_lock, (tmp_path,)) == "locked"


def _of(model: str, fold: int, code: str, data: str) -> Record:
    return {"model": model, "fold": fold, "seed": 0, "identity": {"code": code, "data": data}}


def test_latest_are_those_like_the_last_of_each_model() -> None:
    old = [_of("A", 1, "old", "x"), _of("A", 2, "old", "y"), _of("B", 1, "old", "x"), _of("B", 2, "old", "y")]
    new = [_of("A", 1, "new", "x")]
    assert latest(old) == old
    assert latest([*old, *new]) == [*old[2:], *new]
    # New data of one fold make everything on the old worthless.
    assert latest([*old, _of("B", 1, "old", "z")]) == [old[1], old[3], _of("B", 1, "old", "z")]
    assert latest([]) == []
