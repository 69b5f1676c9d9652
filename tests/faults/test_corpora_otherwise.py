"""Corpora that are whole, but written otherwise than ours: the line names the option, and the option reads them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.batches.batch import Batch
from datamodules.batches.masks import restrict, utterance_keys
from datamodules.errors import CorpusError, InputError
from datamodules.storage.check import CheckReport, check_corpus
from datamodules.storage.ids import RULES, MatchRule, key_of, tidy
from datamodules.storage.layouts import IEMOCAP_LAYOUT, speaker_of
from datamodules.storage.writing import write_features
from datamodules.synthetic import Synthetic
from ifmmin.tasks import Classification
from tests.faults.cases import Case, one_line, table
from tests.faults.tiny import FIRST, LABELS, NAMES, SECOND, Tiny, write_split, write_tiny

Form = Literal["NFC", "NFD"]


def fitted(root: Path, **options: Any) -> Tiny:
    data = Tiny(str(root), **options)
    data.setup("fit")
    return data


def checked(root: Path, **options: Any) -> CheckReport:
    return check_corpus(root, Tiny.layout.with_options(options))


# Ids.

WRITTEN: dict[str, Callable[[str], str]] = {
    "suffix": lambda name: f"{name}.wav",
    "blanks": lambda name: f" {name} ",
    "folder": lambda name: f"./{name}",
    "case": lambda name: name.lower(),
    "all": lambda name: f" ./wav/{name.upper()}.WAV",
}


@pytest.mark.parametrize("rule", WRITTEN)
def test_the_rule_that_matches_all_ids_is_named_and_applied(rule: str, root: Path) -> None:
    expected = fitted(root)
    write_split(root, [WRITTEN[rule](name) for name in NAMES], LABELS)
    with pytest.raises(CorpusError, match=rf"ids differ by .* only: give --data\.match_ids {rule}\.$"):
        fitted(root)
    assert any(f"give --data.match_ids {rule}." in line for line in checked(root).lines)
    data = fitted(root, match_ids=rule)
    for theirs, ours in zip(expected.corpus.frames, data.corpus.frames, strict=True):
        torch.testing.assert_close(theirs.utterance(0), ours.utterance(0), rtol=0, atol=0)
        torch.testing.assert_close(theirs.offsets, ours.offsets)
    report = checked(root, match_ids=rule)
    assert report.lines == []
    assert (report.summary.speakers, report.summary.unknown_speakers, report.summary.unused) == (6, [], [])


@pytest.mark.parametrize(("stored", "asked"), [("NFD", "NFC"), ("NFC", "NFD")])
@pytest.mark.parametrize("rule", ["accents", "all"])
def test_accents_in_one_character_or_two(stored: Form, asked: Form, rule: MatchRule, tmp_path: Path) -> None:
    names = [name.replace("impro", "impr\u00e9") for name in NAMES]
    write_tiny(tmp_path, NAMES)
    for modality in range(3):
        path = Tiny.layout.feature_path(tmp_path, modality)
        with h5py.File(path, "r") as file:
            frames = [np.array(file[name]) for name in NAMES]
        write_features(path, zip([unicodedata.normalize(stored, name) for name in names], frames, strict=True))
    written = [unicodedata.normalize(asked, name) for name in names]
    write_split(tmp_path, written, LABELS)
    with pytest.raises(CorpusError, match=r"ids differ by how accents are stored .* give --data\.match_ids accents\.$"):
        fitted(tmp_path)
    data = fitted(tmp_path, match_ids=rule)
    assert data.corpus.lengths.gt(0).all()
    assert {unicodedata.normalize("NFC", name) for name in data.corpus.utterances} == set(names)


def test_feature_files_that_differ_among_themselves_are_matched(root: Path) -> None:
    with h5py.File(root / "V" / "v.h5", "r+") as file:
        for name in NAMES:
            file.move(name, f"{name}.mp4")
    assert fitted(root, match_ids="suffix").corpus.lengths.gt(0).all()
    both = Tiny(str(root), match_ids="suffix", predict_split="all")
    both.setup("predict")
    assert both.corpus.utterances == sorted(NAMES)
    assert fitted(root, match_ids="suffix", memory_budget_gb=0).corpus.frames[1].utterance(3).isfinite().all()


def test_ids_that_a_rule_cannot_tell_apart_are_refused(root: Path) -> None:
    with h5py.File(root / "A" / "a.h5", "r+") as file:
        file[FIRST.lower()] = file[FIRST][()]
    expected = rf"utterance {FIRST}: one of 2 entries that --data\.match_ids case cannot tell apart"
    with pytest.raises(CorpusError, match=expected):
        fitted(root, match_ids="case")
    write_split(root, [FIRST, f"{FIRST}.wav", *NAMES[2:]], LABELS)
    with pytest.raises(CorpusError, match=rf"trn_int2name\.npy: utterance {FIRST}: listed more than once"):
        fitted(root, match_ids="suffix")
    with h5py.File(root / "A" / "a.h5", "r+") as file:
        del file[FIRST.lower()]
    write_split(root, [*NAMES[:8], FIRST.upper(), *NAMES[9:]], LABELS)
    with pytest.raises(CorpusError, match="in both train and val"):
        fitted(root, match_ids="case")


def test_ids_that_no_rule_matches_are_missing(root: Path) -> None:
    write_split(root, [f"{name}.wav" for name in NAMES[:-1]] + ["stranger"], LABELS)
    with pytest.raises(CorpusError, match=r"not in this file \(and 11 more utterances\); extract its features"):
        fitted(root)


@given(name=st.text(max_size=12), rule=st.sampled_from([rule.name for rule in RULES]))
@settings(max_examples=50, deadline=None)
def test_a_tidy_id_is_matched_like_the_one_it_comes_from(name: str, rule: Any) -> None:
    once = tidy(name, rule)
    assert len(once) <= len(name)
    assert key_of(name, rule) == (once.casefold() if rule in ("case", "all") else once)


def test_speakers_are_found_whatever_the_case() -> None:
    layout = IEMOCAP_LAYOUT.with_options({"match_ids": "case"})
    assert speaker_of("ses01f_impro04_m012", layout) == speaker_of("Ses01F_impro04_M012", layout) == "SES01M"
    assert speaker_of("ses01f_impro04_m012", IEMOCAP_LAYOUT) is None


# Labels.


def labels_at(*changes: tuple[int, Any], one_hot: bool = False) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        labels = np.eye(4)[LABELS] if one_hot else LABELS.astype(float)
        for position, value in changes:
            labels[position] = value
        write_split(root, NAMES, labels)

    return make


UNKNOWN = [
    Case("label -1", labels_at((0, -1)), "label -1.0 is outside 0..3"),
    Case("another class", labels_at((0, 7)), "label 7.0 is outside 0..3"),
    Case("no number", labels_at((0, np.nan)), "label nan is outside 0..3"),
    Case("no class of one-hot rows", labels_at((0, 0), one_hot=True), "is not one-hot, nor probabilities"),
]


@pytest.mark.parametrize("case", table(UNKNOWN))
def test_utterances_of_no_known_class_are_left_out_on_demand(
    case: Case, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case.make(root)
    with pytest.raises(CorpusError) as caught:
        fitted(root)
    assert case.expected in str(caught.value)
    assert str(caught.value).endswith("or give --data.drop_unknown_labels true.")
    assert str(caught.value) in checked(root).lines
    data = fitted(root, drop_unknown_labels=True)
    assert data.corpus.utterances == NAMES[1:]
    assert data.labels.tolist() == LABELS[1:].tolist()
    assert [record.getMessage() for record in caplog.records] == [
        f"{root}/target/1: 1 utterances have no known label; they are left out."
    ]
    report = checked(root, drop_unknown_labels=True)
    assert (report.lines, report.summary.unused) == ([], [FIRST])
    assert str(report.notes.found[0]) == f"{root}/target/1: 1 utterances have no known label; they are left out."


REFUSED_LABELS = [
    Case("half a class", labels_at((0, 1.5)), "label 1.5 is outside 0..3"),
    Case("two classes", labels_at((0, [1, 1, 0, 0]), one_hot=True), "is not one-hot, nor probabilities"),
    Case("below zero", labels_at((0, [1.5, -0.5, 0, 0]), one_hot=True), "is not one-hot, nor probabilities"),
    Case("a row of NaN", labels_at((0, np.nan), one_hot=True), "is not one-hot, nor probabilities"),
    Case("infinite", labels_at((0, [np.inf, 0, 0, 0]), one_hot=True), "is not one-hot, nor probabilities"),
    Case("nothing known", labels_at(*((n, -1) for n in range(8))), "trn_label.npy: no utterance has a known label"),
]


@pytest.mark.parametrize("case", table(REFUSED_LABELS))
def test_labels_that_mean_nothing_are_refused_even_so(case: Case, root: Path) -> None:
    case.make(root)
    with pytest.raises(CorpusError) as caught:
        fitted(root, drop_unknown_labels=True)
    assert case.expected in str(caught.value)


def test_soft_labels_are_trained_on_as_they_are_and_scored_by_the_most_probable_class(root: Path) -> None:
    soft = np.full((12, 4), 0.025)
    soft[np.arange(12), LABELS] = 0.925
    plain = fitted(root)
    write_split(root, NAMES, soft)
    data = fitted(root)
    assert checked(root).lines == []
    assert data.labels.tolist() == LABELS.tolist()
    assert data.fingerprint != plain.fingerprint
    (batch,) = data.train_dataloader()
    torch.testing.assert_close(batch.targets, torch.tensor(soft, dtype=torch.float32)[batch.index])
    outputs = torch.randn(len(batch), 4, generator=torch.Generator().manual_seed(0))
    loss = Classification(data.class_names).loss(outputs, batch.target)
    by_hand = -sum(
        soft[index, c] * outputs[row].double().log_softmax(0)[c]
        for row, index in enumerate(batch.index[batch.row].tolist())
        for c in range(4)
    ) / len(batch)
    assert float(loss) == pytest.approx(float(by_hand), rel=1e-5)
    half = Classification(data.class_names).loss(outputs.bfloat16(), batch.target)
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(by_hand), rel=0.01)
    (hard,) = plain.train_dataloader()
    assert hard.soft_labels is None
    assert hard.target is not None and torch.equal(hard.target, hard.label)
    assert torch.equal(batch.to("cpu", torch.float64).target, batch.target)


def test_a_split_of_hard_labels_beside_soft_ones_is_one_hot(root: Path) -> None:
    soft = np.eye(4)[LABELS]
    soft[0] = (0.5, 0.3, 0.2, 0)
    write_split(root, NAMES, soft)
    data = fitted(root)
    for batch in (*data.train_dataloader(), *data.test_dataloader()):
        assert isinstance(batch, Batch)
        torch.testing.assert_close(batch.targets, torch.tensor(soft, dtype=torch.float32)[batch.index])


# Zero, never-written and repeated frames.


def with_odd_frames(root: Path) -> None:
    with h5py.File(root / "V" / "v.h5", "r+") as file:
        for name in (FIRST, SECOND):
            del file[name]
        file[FIRST] = np.zeros((1, 4), dtype=np.float32)
        file[SECOND] = np.zeros((3, 4), dtype=np.float32)
        del file[NAMES[3]]
        file[NAMES[3]] = file[NAMES[2]][()]


def notes_of_frames(report: CheckReport) -> list[str]:
    """Notes but those of splits that lack a class, as such small ones do."""
    return [note for note in map(str, report.notes.found) if "no utterance of" not in note]


@pytest.mark.parametrize("budget", [1.0, 0.0])
def test_odd_frames_are_named_and_zero_frames_absent_on_demand(
    root: Path, caplog: pytest.LogCaptureFixture, budget: float
) -> None:
    with_odd_frames(root)
    expected = [
        f"{root}/V/v.h5: utterance {FIRST}: has only zero frames (and 1 more utterance); "
        "--data.zero_frames_absent true takes this modality as missing there.",
        f"{root}/V/v.h5: utterance {NAMES[3]}: has the frames of another utterance; "
        "see that they were extracted from its own recording.",
    ]
    data = fitted(root, memory_budget_gb=budget)
    assert [record.getMessage() for record in caplog.records] == expected
    assert data.corpus.lengths.gt(0).all()
    report = checked(root)
    assert (report.lines, notes_of_frames(report)) == ([], expected)
    data = fitted(root, memory_budget_gb=budget, zero_frames_absent=True)
    assert data.corpus.lengths[:, 1].eq(0).nonzero().flatten().tolist() == [0, 1]
    for batch in data.train_dataloader():
        absent = batch.index[batch.row] < 2
        assert not batch.present[absent, 1].any()
        assert batch.present.any(dim=1).all()
    assert notes_of_frames(checked(root, zero_frames_absent=True)) == expected[1:]


def test_what_was_never_written_is_absent_on_demand(root: Path) -> None:
    with h5py.File(root / "V" / "v.h5", "r+") as file:
        del file[FIRST]
        file.create_dataset(FIRST, (2, 4), "f4")
    with pytest.raises(CorpusError, match="was never written"):
        fitted(root)
    assert fitted(root, zero_frames_absent=True).corpus.lengths[0].tolist() == [2, 0, 2]
    assert checked(root, zero_frames_absent=True).lines == []


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_mask_never_shows_what_is_absent_and_always_something(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    drawn, available = random.random((2, count, 3)) < 0.5
    available[~available.any(axis=1), 1] = True
    shown = restrict(drawn, available, utterance_keys([str(number) for number in range(count)]), 0, seed % 100)
    assert not (shown & ~available).any()
    assert shown.any(axis=1).all()
    for row, (wanted, there) in enumerate(zip(drawn, available, strict=True)):
        assert (
            shown[row].tolist() == [bool(w and t) for w, t in zip(wanted, there, strict=True)]
            or not (wanted & there).any()
        )


# Places and names.


def nested(root: Path) -> None:
    for path in (root / "A" / "a.h5", root / "V" / "v.h5"):
        with h5py.File(path, "r+") as file:
            inner = file.create_group("features")
            for name in NAMES:
                file.move(name, f"features/{name}")
            assert len(inner) == len(NAMES)


def test_entries_one_group_deeper_are_found(root: Path) -> None:
    expected = fitted(root)
    nested(root)
    for budget in (1.0, 0.0):
        data = fitted(root, memory_budget_gb=budget)
        assert torch.equal(data.corpus.frames[0].utterance(5), expected.corpus.frames[0].utterance(5))
    assert checked(root).lines == []


def test_entries_in_one_of_several_groups_are_named(root: Path) -> None:
    nested(root)
    with h5py.File(root / "A" / "a.h5", "r+") as file:
        file.create_group("about")
    with pytest.raises(CorpusError, match=r"a\.h5: holds groups \(about, features\) where utter"):
        fitted(root)


@pytest.mark.parametrize("name", ["a.h5", "A/a", "./A/a.h5", "./a"])
def test_a_feature_name_may_be_that_of_its_file(root: Path, name: str) -> None:
    assert fitted(root, audio_features=name).feature_dims == [3, 4, 5]


def test_near_names_and_folders_are_proposed(root: Path) -> None:
    with pytest.raises(CorpusError, match=r"A/comparE\.h5: does not exist; .*; A has a\.$"):
        fitted(root, audio_features="comparE")
    outer = root.parent
    lines = check_corpus(outer, Tiny.layout).lines
    assert sum(f"does not exist; give --data.root {root}." in line for line in lines) == 3
    with pytest.raises(CorpusError, match=rf"give --data\.root {root}\.$"):
        fitted(outer)


@pytest.mark.parametrize("inner", ["{name}/feature", "{session}/{name}"])
def test_groups_in_place_of_utterances_are_named_by_fit_and_check(root: Path, inner: str) -> None:
    with h5py.File(root / "A" / "a.h5", "r+") as file:
        for name in NAMES:
            file.move(name, "moved")
            file[inner.format(name=name, session=name[:5])] = file["moved"][()]
            del file["moved"]
    with pytest.raises(CorpusError, match=r"a\.h5: holds groups \(Ses01.*\) where utterances are expected") as caught:
        fitted(root)
    assert str(caught.value) in checked(root).lines


@pytest.mark.parametrize("options", [{"root": "/x" * 3000}, {"audio_features": "x" * 300}], ids=["root", "features"])
def test_a_path_that_no_file_system_takes_is_one_line(root: Path, options: dict[str, str]) -> None:
    with pytest.raises(InputError, match="File name too long") as caught:
        Tiny(options.get("root", str(root)), audio_features=options.get("audio_features"))
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["--data.visual_features", "facenet"],
            "V/facenet.h5: does not exist; check the root folder and the feature name",
        ),
        (
            ["--data.audio_features", "comparE.h5", "--data.text_features", "L/bert"],
            "bert.h5: does not exist; check the",
        ),
        (["--data.match_ids", "nearly"], "match_ids: Expected"),
        (["--data.drop_unknown_labels", "maybe"], "drop_unknown_labels: Expected a bool"),
    ],
)
def test_options_of_a_corpus_are_refused_by_the_command_line(
    options: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    sample = str(Path(__file__).parents[1] / "data" / "sample_iemocap")
    words = ["fit", "--model", "MeanFusion", "--data", "IEMOCAP", "--data.root", sample, *options]
    assert expected in one_line(capsys, words)


def test_a_home_folder_is_written_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    assert fitted(Path("~/corpus")).root == root
    with pytest.raises(InputError, match=r"--data\.root ~nobody-here/x: there is no such home folder"):
        Tiny("~nobody-here/x")


# Options.

OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 0}, "--data.batch_size 0: it must be at least 1"),
    ({"batch_size": -4}, "--data.batch_size -4: it must be at least 1"),
    ({"eval_batch_size": 0}, "--data.eval_batch_size 0: it must be at least 1"),
    ({"workers": -1}, "--data.workers -1: it must be at least 0 and at most 1000"),
    ({"workers": 10**6}, "--data.workers 1000000: it must be"),
    ({"memory_budget_gb": -1.0}, "memory_budget_gb -1.0: it must be at least 0"),
    ({"memory_budget_gb": float("nan")}, "memory_budget_gb nan: it must be at least 0"),
    ({"conditions": []}, "--data.conditions []: it must not be empty"),
    ({"conditions": ["a", "v", "a"]}, "--data.conditions a, v, a: give each condition once"),
    ({"conditions": ["x"]}, "condition 'x': choose among"),
    ({"match_ids": "nearly"}, "--data.match_ids 'nearly': choose one of exact, suffix"),
    ({"fold": 2}, "fold 2: Tiny has folds 1..1"),
    ({"train_mask": "1.5"}, "--data.train_mask '1.5': missing rate 1.5: it must be in [0, 1)"),
    ({"train_mask": "0.1,0.2"}, "--data.train_mask '0.1,0.2': give 'uniform', a missing rate in"),
    ({"train_mask": "0.1,1.5,0.2"}, "--data.train_mask '0.1,1.5,0.2': missing rate 1.5 of visual"),
    ({"train_mask": "share:1.5"}, "--data.train_mask 'share:1.5': missing share 1.5: it must be in [0, 1)"),
    ({"train_mask": "share:0.1,0.2,0.3"}, "--data.train_mask 'share:0.1,0.2,0.3': give 'uniform'"),
    ({"train_pattern": "frame:0.3"}, "--data.train_pattern 'frame:0.3': give frames:RATE, bursts:RATE"),
    ({"eval_pattern": "bursts:1.5"}, "--data.eval_pattern 'bursts:1.5': rate 1.5 of audio: it must be from 0 to 1"),
    ({"eval_pattern": 0.3}, "--data.eval_pattern 0.3: it must be text"),
    ({"permanent_mask": "yes"}, "--data.permanent_mask 'yes': it must be true or false"),
    ({"audio_normalization": "z"}, "--data.audio_normalization 'z': choose one of train, utterance, none"),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS, ids=[str(options) for options, _ in OPTIONS])
def test_options_out_of_range_are_refused(pristine: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        Tiny(str(pristine), **options)
    assert expected in str(caught.value)


def test_the_size_of_the_built_in_corpus_is_checked_before_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--data\.utterances_per_speaker 0: it must be at least 1"):
        Synthetic(root=str(tmp_path / "new"), utterances_per_speaker=0)
    assert not (tmp_path / "new").exists()


def test_no_condition_is_refused_before_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sample = str(Path(__file__).parents[1] / "data" / "sample_iemocap")
    words = ["fit", "--model", "MeanFusion", "--data", "IEMOCAP", "--data.root", sample, "--data.conditions", "[]"]
    assert "--data.conditions []: it must not be empty" in one_line(capsys, words)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# Extreme values.


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e6])
@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", ">f8", "<f2", "i4", ">i2"])
def test_frames_of_any_type_and_scale_have_statistics(root: Path, scale: float, kind: str) -> None:
    random = np.random.default_rng(0)
    with h5py.File(root / "A" / "a.h5", "w") as file:
        for name in NAMES:
            limit = np.finfo(kind).max if "f" in kind else np.iinfo(kind).max
            file[name] = np.clip(7 + scale * random.standard_normal((4, 3)), -limit, float(limit)).astype(kind)
    data = fitted(root)
    statistics = data.statistics[0]
    assert statistics is not None
    assert statistics.mean.isfinite().all() and statistics.std.isfinite().all() and statistics.std.gt(0).all()
    for batch in data.train_dataloader():
        assert batch.frames[0].isfinite().all()
