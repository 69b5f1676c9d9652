"""Imports of packs against plain NumPy on the same arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import datamodules
from datamodules.errors import CorpusError, InputError
from datamodules.importing import packs
from datamodules.importing.finishing import made_whole
from datamodules.importing.invented import Form, invented_pack, write_pack
from datamodules.importing.packs import import_pack
from datamodules.importing.published import PUBLISHED, SUMS
from datamodules.storage.check import check_corpus

FILES = {"audio": "A/covarep.h5", "vision": "V/facet.h5", "text": "L/bert.h5"}
SPLITS = {"train": "trn", "valid": "val", "test": "tst"}


def small(form: Form = "aligned", corpus: str = "CMUMOSI") -> dict[str, Any]:
    steps = (9, 9, 9) if form == "aligned" else (20, 15, 9)
    return invented_pack(corpus, form, (10, 4, 5), widths=(3, 4, 6), steps=steps)


def frames_of(root: Path, key: str, name: str) -> Any:
    with h5py.File(root / FILES[key]) as file:
        return file[name][()]


def imported(pack: dict[str, Any], folder: Path, **options: Any) -> Path:
    import_pack("CMUMOSI", write_pack(folder / "pack.pkl", pack), folder / "out", **options)
    return folder / "out"


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("form", ["aligned", "unaligned"])
def test_frames_labels_and_ids_are_those_of_the_pack(form: Form, protocol: int, tmp_path: Path) -> None:
    pack = small(form)
    import_pack("CMUMOSI", write_pack(tmp_path / "pack.pkl", pack, protocol), tmp_path / "out")
    for split, prefix in SPLITS.items():
        part, folder = pack[split], tmp_path / "out" / "target" / "1"
        assert np.load(folder / f"{prefix}_int2name.npy")[:, 0].astype(str).tolist() == part["id"]
        np.testing.assert_array_equal(np.load(folder / f"{prefix}_label.npy"), part["regression_labels"])
        for row, name in enumerate(part["id"]):
            words = int(part["text_bert"][row, 1].sum())
            lengths = {"audio": words, "vision": words, "text": words}
            if form == "unaligned":
                lengths |= {key: part[f"{key}_lengths"][row] for key in ("audio", "vision")}
            for key, length in lengths.items():
                expected = part[key][row, :length].astype(np.float32)
                expected[np.isneginf(expected)] = 0
                np.testing.assert_array_equal(frames_of(tmp_path / "out", key, name), expected)


def test_what_was_changed_is_counted(tmp_path: Path) -> None:
    pack = small()
    pack["test"]["audio"][3, 0, :2] = -np.inf
    out = imported(pack, tmp_path)
    facts = json.loads((out / "corpus.json").read_text(encoding="utf-8"))["facts"]
    found = facts["import"]
    content = (tmp_path / "pack.pkl").read_bytes()
    assert found["sha256"] == hashlib.sha256(content).hexdigest()
    assert (found["bytes"], found["pack"], found["published"]) == (len(content), "pack.pkl", None)
    infinite = [int(np.isneginf(pack[split]["audio"]).sum()) for split in SPLITS]
    rows = [int(np.isneginf(pack[split]["audio"]).any(axis=(1, 2)).sum()) for split in SPLITS]
    assert (found["audio"]["replaced_values"], found["audio"]["replaced_utterances"]) == (sum(infinite), sum(rows))
    words = sum(int(pack[split]["text_bert"][:, 1].sum()) for split in SPLITS)
    assert [found[name]["padding_frames"] for name in ("audio", "visual", "text")] == [19 * 9 - words] * 3
    assert facts["invented"] is True


def test_no_frame_but_zeros_is_cut(tmp_path: Path) -> None:
    pack = small("unaligned")
    train = pack["train"]
    train["vision"][0, 14] = 1  # past its stated length
    train["vision_lengths"][0] = 5
    train["vision"][1, :10] = 0  # padded before
    train["vision"][1, 10:] = 2
    train["vision_lengths"][1] = 1
    train["vision"][2] = 0  # nobody in the picture
    train["vision_lengths"][2] = 1
    out = imported(pack, tmp_path)
    names = train["id"]
    assert [len(frames_of(out, "vision", name)) for name in names[:3]] == [15, 5, 1]
    np.testing.assert_array_equal(frames_of(out, "vision", names[1]), np.full((5, 4), 2))
    found = json.loads((out / "corpus.json").read_text(encoding="utf-8"))["facts"]["import"]["visual"]
    assert [found[name] for name in ("past_stated_length", "padded_before", "only_zero_frames")] == [1, 1, 1]


@pytest.mark.parametrize("corpus", [*PUBLISHED])
def test_the_corpus_passes_the_check_and_makes_batches(corpus: str, tmp_path: Path) -> None:
    path = write_pack(tmp_path / "pack.pkl", small("unaligned", corpus))
    import_pack(corpus, path, tmp_path / "out")
    owner = getattr(datamodules, corpus)
    assert check_corpus(tmp_path / "out", owner.layout).lines == []
    data = owner(str(tmp_path / "out"))
    data.setup("fit")
    assert (data.monitor, data.feature_dims, data.synthetic) == ("MAE", [3, 4, 6], True)
    assert len(data.indices("train")) == 10
    assert {*data.targets} == {"train", "val", "test"}


def change(split: str, name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def changed(pack: dict[str, Any]) -> None:
        pack[split][name] = value(pack[split][name]) if callable(value) else value

    return changed


def put(split: str, name: str, place: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def changed(pack: dict[str, Any]) -> None:
        pack[split][name][place] = value

    return changed


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda pack: pack.pop("valid"), "has no split valid, but invented, train, test"),
        (lambda pack: pack["test"].pop("vision"), "test: has no vision"),
        (
            lambda pack: pack["train"].pop("text"),
            "train: has no text, .*; text_bert has numbers of words, not features",
        ),
        (put("valid", "regression_labels", 1, 3.5), r"utterance video0003\$_\$1: valid: label 3.5 is outside -3..3"),
        (put("valid", "regression_labels", 2, np.nan), r"utterance video0003\$_\$2: valid: label nan is outside -3..3"),
        (change("train", "regression_labels", lambda labels: labels[:-1]), "train: has 9 entries of regression_labels"),
        (change("train", "audio", lambda frames: frames[:-2]), "train: has 8 entries of audio, but 10 ids"),
        (put("test", "id", 0, "video0004$_$1"), r"utterance video0004\$_\$1: test: listed more than once"),
        (put("test", "id", 0, "video0000$_$1"), r"utterance video0000\$_\$1: test: listed in train too"),
        (put("test", "id", 0, "video0000$_$9"), "video video0000 is in both train and test; .*--allow-shared-videos"),
        (put("valid", "id", 0, "video0000$_$9"), "video video0000 is in both train and val"),
        (put("test", "text", (2, 0, 0), np.inf), r"utterance video0004\$_\$2: test: text has the value inf"),
        (put("test", "vision", (2, 0, 0), np.nan), r"test: vision has the value nan; --zero-not-finite"),
        (put("test", "audio", (2, 0, 0), np.inf), "test: audio has the value inf"),
        (
            put("train", "audio_lengths", 3, 21),
            r"video0000\$_\$3: train: audio_lengths says 21, but audio has 20 steps",
        ),
        (put("train", "audio_lengths", 3, -1), "audio_lengths says -1"),
        (put("train", "audio_lengths", 3, 1.5), "audio_lengths are no list of whole numbers"),
        (change("train", "audio", "sound"), "train: audio is no array"),
        (change("test", "vision", lambda frames: frames[..., :2]), r"test: vision is not \[steps, 4\] as before"),
        (change("train", "text_bert", lambda masks: masks[:, :2]), "train: text_bert is no array"),
        (put("train", "id", 0, "a/b"), "an id with a slash"),
        (put("train", "id", 0, 7), "train: id has something other than texts"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    damage: Callable[[dict[str, Any]], Any], expected: str, tmp_path: Path
) -> None:
    pack = small("unaligned")
    damage(pack)
    with pytest.raises(CorpusError, match=expected) as raised:
        imported(pack, tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / 'pack.pkl'}: ")
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["pack.pkl"]


def test_infinities_become_zero_where_that_is_asked(tmp_path: Path) -> None:
    pack = small()
    pack["test"]["text"][0, 0, :3] = (np.nan, np.inf, -np.inf)
    out = imported(pack, tmp_path, zero_not_finite=True)
    np.testing.assert_array_equal(frames_of(out, "text", pack["test"]["id"][0])[0, :3], 0)


def test_shared_videos_are_taken_where_that_is_asked_and_noted_by_the_check(tmp_path: Path) -> None:
    pack = small()
    pack["valid"]["id"][0] = "video0000$_$9"
    out = imported(pack, tmp_path, allow_shared_videos=True)
    report = check_corpus(out, datamodules.CMUMOSI.layout)
    assert [str(note) for note in report.notes.found if "video0000 is in both train and val" in str(note)]
    pack["test"]["id"][0] = "video0000$_$8"
    import_pack("CMUMOSI", write_pack(tmp_path / "b.pkl", pack), tmp_path / "b", allow_shared_videos=True)
    lines = check_corpus(tmp_path / "b", datamodules.CMUMOSI.layout).lines
    assert any("speaker video0000 is in both train and test" in line for line in lines)
    # CH-SIMS is split so: it is noted, and trains.
    sims = small(corpus="CHSIMS")
    sims["test"]["id"][0] = "video0000$_$9"
    done = import_pack("CHSIMS", write_pack(tmp_path / "c.pkl", sims), tmp_path / "c")
    assert any("train and test share 1 videos, such as video0000" in note for note in done.notes)
    report = check_corpus(tmp_path / "c", datamodules.CHSIMS.layout)
    assert report.lines == []
    assert any("video0000 is in both train and test" in str(note) for note in report.notes.found)
    datamodules.CHSIMS(str(tmp_path / "c")).setup("fit")


def test_known_packs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(SUMS) == 5
    assert all(len(digest) == 64 and corpus in PUBLISHED for digest, (corpus, _) in SUMS.items())
    path = write_pack(tmp_path / "pack.pkl", small())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(packs, "SUMS", {digest: ("CMUMOSI", "aligned_50.pkl")})
    assert import_pack("CMUMOSI", path, None).facts["published"] == "aligned_50.pkl"
    with pytest.raises(CorpusError, match=r"is aligned_50\.pkl of CMUMOSI, by its SHA-256; import it as CMUMOSI"):
        import_pack("CMUMOSEI", path, None)


def test_a_pack_of_another_corpuss_sizes_is_refused(tmp_path: Path) -> None:
    pack = invented_pack("CMUMOSI", "aligned", (1284, 229, 686), widths=(1, 1, 1), steps=(4, 4, 4))
    path = write_pack(tmp_path / "pack.pkl", pack)
    with pytest.raises(CorpusError, match="1284 / 229 / 686 utterances, the sizes of CMUMOSI, not of CMUMOSEI"):
        import_pack("CMUMOSEI", path, None)


def test_a_folder_is_taken_only_if_it_is_free_or_holds_the_same(tmp_path: Path) -> None:
    out = imported(small(), tmp_path)
    assert not import_pack("CMUMOSI", tmp_path / "pack.pkl", out).written
    with pytest.raises(InputError, match="holds something else already"):
        import_pack("CMUMOSI", tmp_path / "pack.pkl", out, zero_not_finite=True)
    with pytest.raises(InputError, match="no such corpus; there are CMUMOSI, CMUMOSEI, CHSIMS"):
        import_pack("MOSI", tmp_path / "pack.pkl", out)


def test_what_a_killed_import_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".out.import" / "new"
    left.mkdir(parents=True)
    (left / "half").write_text("x", encoding="utf-8")
    with made_whole(tmp_path / "out") as new:
        assert not [*new.iterdir()]
        with pytest.raises(InputError, match="this import is in use by process"), made_whole(tmp_path / "out"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_lists_of_arrays_serve_too(tmp_path: Path) -> None:
    pack = small("unaligned")
    for split in SPLITS:
        part = pack[split]
        part["vision"] = [
            frames[:length] for frames, length in zip(part["vision"], part["vision_lengths"], strict=True)
        ]
        part["regression_labels"] = part["regression_labels"].tolist()
        part["id"] = np.array(part["id"])
    out = imported(pack, tmp_path)
    name = str(pack["train"]["id"][2])
    np.testing.assert_array_equal(frames_of(out, "vision", name), pack["train"]["vision"][2].astype(np.float32))
