"""Label files of folds, as the corpus's own reader reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datamodules.extraction.index import index_of, write_folds
from datamodules.extraction.recordings import Index
from datamodules.storage.layouts import IEMOCAP_LAYOUT, MSP_IMPROV_LAYOUT
from datamodules.storage.targets import SPLITS, read_targets
from tests.datamodules.extraction.index.trees import by_id, every_actor, every_speaker, iemocap, msp_improv


def everything(index: Index) -> set[str]:
    return set(by_id(index))


def test_folds_are_read_back(tmp_path: Path) -> None:
    for layout, index in (
        (IEMOCAP_LAYOUT, index_of("IEMOCAP", iemocap(tmp_path / "i", every_speaker()))),
        (MSP_IMPROV_LAYOUT, index_of("MSPIMPROV", msp_improv(tmp_path / "m", every_actor()))),
    ):
        out = tmp_path / layout.name
        assert write_folds(out, index, everything(index)) == ()
        labels = {name: recording.label for name, recording in by_id(index).items()}
        for fold in range(1, layout.folds + 1):
            targets = read_targets(out, layout, fold)
            for split in SPLITS:
                assert tuple(targets[split].utterances) == index.folds[fold][split]
                read = [layout.class_names[number] for number in targets[split].labels.tolist()]
                assert read == [labels[name] for name in targets[split].utterances]


def test_labels_are_one_hot_rows_and_ids_bytes(tmp_path: Path) -> None:
    index = index_of("IEMOCAP", iemocap(tmp_path / "raw", every_speaker()))
    write_folds(tmp_path, index, everything(index))
    labels, ids = (np.load(tmp_path / f"target/3/tst_{name}.npy") for name in ("label", "int2name"))
    assert (labels.dtype, labels.shape, ids.dtype.kind, ids.shape) == (np.float64, (8, 4), "S", (8, 1))
    assert ids[0, 0] == b"Ses02F_impro01_F000"
    np.testing.assert_array_equal(labels[0], [1, 0, 0, 0])
    np.testing.assert_array_equal(labels.sum(axis=1), np.ones(8))


def test_only_usable_utterances_are_written(tmp_path: Path) -> None:
    index = index_of("IEMOCAP", iemocap(tmp_path / "raw", every_speaker(), {}))
    usable = {name for name in everything(index) if name.endswith("F001") or "_M" in name}
    assert write_folds(tmp_path, index, usable) == ()
    for fold in range(1, 11):
        targets = read_targets(tmp_path, IEMOCAP_LAYOUT, fold)
        assert {name for split in SPLITS for name in targets[split].utterances} == usable
    assert write_folds(tmp_path, index, [*usable, "somebody"]) == ()  # an unknown id is nobody's


def test_a_split_that_becomes_empty_is_a_problem(tmp_path: Path) -> None:
    index = index_of("IEMOCAP", iemocap(tmp_path / "raw", every_speaker()))
    usable = {name for name, recording in by_id(index).items() if recording.speaker != "Ses01F"}
    problems = write_folds(tmp_path, index, usable)
    assert [str(problem).removeprefix(f"{tmp_path}/") for problem in problems] == [
        "target/1/tst_label.npy: no test utterance is left: all 8 lack a modality; "
        "see absent.csv; or extract again with --incomplete keep.",
        "target/2/val_label.npy: no val utterance is left: all 8 lack a modality; "
        "see absent.csv; or extract again with --incomplete keep.",
    ]
    assert np.load(tmp_path / "target/1/tst_label.npy").shape == (0, 4)
    assert np.load(tmp_path / "target/1/tst_int2name.npy").shape == (0, 1)


def test_folds_of_an_earlier_run_are_removed(tmp_path: Path) -> None:
    msp = index_of("MSPIMPROV", msp_improv(tmp_path / "m", every_actor()))
    write_folds(tmp_path, msp, everything(msp))
    (tmp_path / "target/12/notes.txt").touch()
    (tmp_path / "target/other").mkdir()
    index = index_of("IEMOCAP", iemocap(tmp_path / "i", every_speaker()))
    write_folds(tmp_path, index, everything(index))
    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == sorted(
        [*map(str, range(1, 11)), "12", "other"]
    )
    assert [path.name for path in (tmp_path / "target/12").iterdir()] == ["notes.txt"]
