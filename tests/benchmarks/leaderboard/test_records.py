import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.leaderboard.records import RECORDS, Record, append, latest, read_lines
from datamodules.errors import InputError
from datamodules.files import locked
from tests.benchmarks.leaderboard.boards import board_records

ONE, TWO, THREE = (
    replace(Record.from_json(board_records(["M"], [1], [seed])[0]), platform="é", sweep={}) for seed in range(3)
)


def test_survives_a_kill_at_any_byte(tmp_path: Path) -> None:
    path = tmp_path / RECORDS
    append(path, ONE)
    append(path, TWO)
    whole = path.read_bytes()
    first = len(json.dumps(ONE.to_json())) + 1
    ends = (first - 1, first, len(whole) - 1, len(whole))
    # Around the ends every byte, elsewhere every hundredth.
    for size in sorted({*range(0, len(whole), 100), *(end + d for end in ends for d in range(-3, 3)), len(whole)}):
        if size > len(whole):
            continue
        path.write_bytes(whole[:size])
        records, torn = read_lines(path)
        # The newline that ends a record may be missing: the record is there all the same.
        expected = [ONE] * (size >= first - 1) + [TWO] * (size >= len(whole) - 1)
        assert records == expected
        assert bool(torn) == (size not in (0, *ends))
        append(path, THREE)
        assert read_lines(path)[0] == [*expected, THREE]


def test_what_is_no_record_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / RECORDS
    path.write_text('[1, 2]\n{"model": "M"}\n\n', encoding="utf-8")
    append(path, ONE)
    records, wrong = read_lines(path)
    assert records == [ONE] and wrong == {1: "it is no record", 2: "class_names is missing"}


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert read_lines(tmp_path / RECORDS) == ([], {})


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wall_time_s is nan, not finite"):
        append(tmp_path / RECORDS, replace(ONE, wall_time_s=float("nan")))
    assert not (tmp_path / RECORDS).exists()


def _try_to_lock(board: Path) -> str:
    try:
        with locked(board, "board"):
            return "locked"
    except InputError as error:
        return str(error)


def test_a_board_is_held_by_one_process(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        with locked(tmp_path, "board"):
            assert "this board is in use by process" in pool.apply(_try_to_lock, (tmp_path,))
        assert pool.apply(_try_to_lock, (tmp_path,)) == "locked"


def _of(model: str, fold: int, code: str, data: str) -> Record:
    return replace(ONE, model=model, fold=fold, seed=0, identity={**ONE.identity, "code": code, "data": data})


def test_latest_are_those_like_the_last_of_each_model() -> None:
    old = [_of("A", 1, "old", "x"), _of("A", 2, "old", "y"), _of("B", 1, "old", "x"), _of("B", 2, "old", "y")]
    new = [_of("A", 1, "new", "x")]
    assert latest(old) == old
    assert latest([*old, *new]) == [*old[2:], *new]
    # New data of one fold make everything on the old worthless.
    assert latest([*old, _of("B", 1, "old", "z")]) == [old[1], old[3], _of("B", 1, "old", "z")]
    assert latest([]) == []


def test_records_of_older_versions_read() -> None:
    records, torn = read_lines(Path(__file__).parents[3] / "tests/data/runs_0_1_0/board" / RECORDS)
    assert records and not torn
    assert {record.task.name for record in records} == {"classification"}
    for record in records:
        assert Record.from_json(json.loads(json.dumps(record.to_json()))).to_json() == record.to_json()
