"""Files that others made by utterance: NumPy arrays and OpenFace's tables."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.errors import InputError
from datamodules.extraction.extractor import Absent, Words
from datamodules.extraction.extractors import registry
from datamodules.extraction.extractors.npy import Npy
from datamodules.extraction.extractors.openface import OpenFace
from datamodules.extraction.recipes import Choice


def of(utterance: str) -> Words:
    return Words(utterance, "")


# npy


@pytest.mark.parametrize("modality", ["audio", "visual", "text"])
def test_arrays_come_back(tmp_path: Path, modality: str) -> None:
    wanted = np.random.default_rng(0).standard_normal((3, 5))
    np.save(tmp_path / "one.npy", wanted)
    made = registry.build(Choice("npy", {"folder": str(tmp_path)}), modality)
    assert (made.modality, made.width, made.reads.kind) == (modality, 5, "nothing")
    found = made(of("one"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


def test_one_vector_is_one_row_and_ints_are_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.arange(4))
    np.testing.assert_array_equal(Npy(str(tmp_path), "text")(of("one")), [[0, 1, 2, 3]])


def test_an_utterance_without_a_file_is_absent(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros((1, 2)))
    with pytest.raises(Absent, match="no npy file"):
        Npy(str(tmp_path), "text")(of("two"))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 3)), "is [2, 3], not [T, 2] with T at least 1"),
        (np.zeros((0, 2)), "is [0, 2], not [T, 2] with T at least 1"),
        (np.zeros((1, 2, 2)), "is no array [T, D] of numbers"),
        (np.array(1.0), "is no array [T, D] of numbers"),
        (np.array([["a", "b"]]), "is no array [T, D] of numbers"),
        (np.zeros((1, 2), complex), "is no array [T, D] of numbers"),
        (np.array([[1.0, np.nan]]), "has values that are not finite"),
        (np.array([[1.0, np.inf]]), "has values that are not finite"),
        (np.array([[1e300, 1.0]]), "has values that are not finite"),
        (np.array([[{}, {}]]), "cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_file_that_is_no_array_is_named(tmp_path: Path, array: Any, said: str) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 2)))
    np.save(tmp_path / "two.npy", array, allow_pickle=True)
    with pytest.raises(InputError) as caught:
        Npy(str(tmp_path), "text")(of("two"))
    assert said in str(caught.value)
    assert str(tmp_path / "two.npy") in str(caught.value)


class Runs:
    """Would make a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["array", "plain pickle"])
def test_nothing_in_a_file_is_run(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    thing = Runs(tmp_path / "made")
    if kind == "array":
        np.save(tmp_path / "in" / "a.npy", np.array([[thing]], object), allow_pickle=True)
    else:
        (tmp_path / "in" / "a.npy").write_bytes(pickle.dumps(thing))
    with pytest.raises(InputError, match="cannot be read"):
        Npy(str(tmp_path / "in"), "text")
    assert not (tmp_path / "made").exists()


def test_a_folder_is_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"npy: .* is no folder"):
        Npy(str(tmp_path / "none"), "text")
    with pytest.raises(InputError, match=r"npy: .* has no \*.npy files"):
        Npy(str(tmp_path), "text")


@pytest.mark.parametrize("utterance", ["../secret", "/etc/passwd", "a/../../secret"])
def test_an_id_does_not_lead_out(tmp_path: Path, utterance: str) -> None:
    (tmp_path / "in").mkdir()
    for path in (tmp_path / "in" / "a.npy", tmp_path / "secret.npy"):
        np.save(path, np.zeros((1, 2)))
    with pytest.raises(InputError, match="leads out of"):
        Npy(str(tmp_path / "in"), "text")(of(utterance))


def test_the_recipe_follows_names_and_contents(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 2)))
    seen = {Npy(str(tmp_path), "text").recipe()["sha256"]}
    np.save(tmp_path / "a.npy", np.ones((1, 2)))  # of the same size
    seen.add(Npy(str(tmp_path), "text").recipe()["sha256"])
    (tmp_path / "a.npy").rename(tmp_path / "b.npy")
    seen.add(Npy(str(tmp_path), "text").recipe()["sha256"])
    assert len(seen) == 3


# OpenFace

AUS = [f"AU{number:02}_r" for number in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)]
AUS += [f"AU{number:02}_c" for number in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 28, 45)]
GAZE = [f"gaze_{eye}_{axis}" for eye in (0, 1) for axis in "xyz"] + ["gaze_angle_x", "gaze_angle_y"]
POSE = [f"pose_T{axis}" for axis in "xyz"] + [f"pose_R{axis}" for axis in "xyz"]
HEADER = ["frame", "face_id", "timestamp", "confidence", "success", *GAZE, "eye_lmk_x_0", *POSE, "x_0", *AUS]


def write(path: Path, rows: list[dict[str, Any]], header: list[str] = HEADER) -> None:
    """A table as OpenFace writes it, with blanks behind the commas of the header; unnamed values are 0."""
    with path.open("w", newline="") as file:
        file.write(", ".join(header) + "\n")
        csv.writer(file).writerows([[row.get(name, 0) for name in header] for row in rows])


def rows(count: int, fps: float = 30, **values: Any) -> list[dict[str, Any]]:
    """Rows at ``fps`` with random action units, gaze and pose."""
    random = np.random.default_rng(count)
    made = []
    for number in range(count):
        seen = {name: round(random.random(), 3) for name in (*GAZE, *POSE, *AUS)}
        made.append({"frame": number + 1, "timestamp": round(number / fps, 3), "success": 1, **seen, **values})
    return made


def naive(table: list[dict[str, Any]], columns: list[str]) -> list[list[float]]:
    """Means of the rows of each tenth of a second, one row after the other."""
    slots: dict[int, list[list[float]]] = {}
    for row in table:
        if row["success"]:
            slots.setdefault(int(float(row["timestamp"]) * 1000 + 0.5) // 100, []).append(
                [row[name] for name in columns]
            )
    return [[sum(column) / len(found) for column in zip(*found, strict=True)] for _, found in sorted(slots.items())]


def test_action_units_gaze_and_pose_at_ten_a_second(tmp_path: Path) -> None:
    table = rows(31)
    for number in (3, 4, 5, 12):  # a whole tenth of a second, and one row of another
        table[number].update(success=0, AU01_r=99)
    write(tmp_path / "one.csv", table)
    made = OpenFace(str(tmp_path))
    assert made.width == 49
    assert list(made.columns) == [*AUS, *GAZE, *POSE]
    found = made(of("one"))
    assert found.shape == (10, 49)  # 11 tenths, of which one has no face
    np.testing.assert_allclose(found, naive(table, [*AUS, *GAZE, *POSE]), rtol=1e-6)


def test_groups_and_rate_are_options(tmp_path: Path) -> None:
    table = rows(7)
    write(tmp_path / "one.csv", table)
    made = registry.build(Choice("openface", {"folder": str(tmp_path), "groups": "pose, au", "fps": "0"}), "visual")
    np.testing.assert_allclose(made(of("one")), [[row[name] for name in (*POSE, *AUS)] for row in table], rtol=1e-6)
    assert made.recipe()["columns"] == [*POSE, *AUS]


def test_of_several_faces_the_one_seen_most(tmp_path: Path) -> None:
    long, short = rows(6, face_id=1), rows(3, face_id=0)
    write(tmp_path / "one.csv", sorted(long + short, key=lambda row: row["frame"]))
    np.testing.assert_allclose(OpenFace(str(tmp_path))(of("one")), naive(long, [*AUS, *GAZE, *POSE]), rtol=1e-6)


def test_pictures_without_time_stamps_are_rows(tmp_path: Path) -> None:
    header = [name for name in HEADER if name not in ("timestamp", "face_id")]
    write(tmp_path / "one.csv", rows(4), header)
    assert OpenFace(str(tmp_path))(of("one")).shape == (4, 49)


@pytest.mark.parametrize(("count", "said"), [(5, "no face in 5 frames"), (0, "no face in 0 frames")])
def test_no_face_is_absent(tmp_path: Path, count: int, said: str) -> None:
    write(tmp_path / "one.csv", rows(count, success=0))
    with pytest.raises(Absent, match=said):
        OpenFace(str(tmp_path))(of("one"))


def test_no_file_is_absent(tmp_path: Path) -> None:
    write(tmp_path / "one.csv", rows(1))
    with pytest.raises(Absent, match="no csv file"):
        OpenFace(str(tmp_path))(of("two"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("success", "failure"), "has no column success"),
        (lambda text: text.replace("gaze_", "look_"), "has no columns of gaze"),
        (lambda text: text.replace("AU45_r", "AU46_r"), "has other columns than a.csv"),
        (lambda text: text[: len(text) // 2], "is no table of numbers"),
        (lambda text: text + "1,2,x\n", "is no table of numbers"),
        (lambda text: text.replace("0.", "nan", 1), "is no table of numbers"),
        (lambda text: text.replace("\n1,", "\nx,", 1), ""),
        (lambda text: "", "has no column success"),
        (lambda text: "\x1b[2J,\xff\n", "has no column success"),
    ],
)
def test_a_table_of_something_else_is_named(tmp_path: Path, change: Any, said: str) -> None:
    write(tmp_path / "a.csv", rows(3))
    (tmp_path / "b.csv").write_text(change((tmp_path / "a.csv").read_text()))
    made = OpenFace(str(tmp_path))
    if not said:  # what is not read may be anything
        assert made(of("b")).shape[1] == 49
        return
    with pytest.raises(InputError) as caught:
        made(of("b"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", rows(3, AU12_r="nan"))
    with pytest.raises(InputError, match=r"a\.csv: has values that are not finite"):
        OpenFace(str(tmp_path))(of("a"))


@pytest.mark.parametrize("groups", ["", "aus", "au,au", "au,"])
def test_unknown_groups_are_refused(tmp_path: Path, groups: str) -> None:
    with pytest.raises(InputError, match="groups must be some of au, gaze, pose"):
        OpenFace(str(tmp_path), groups=groups)
