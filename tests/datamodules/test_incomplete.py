"""Corpora with gaps: utterances that lack a modality are refused, left out, or kept, as the option says."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from datamodules.base import EmotionDataModule
from datamodules.batches.batch import Batch
from datamodules.batches.masks import mask_sampler, utterance_keys
from datamodules.conditions import CONDITIONS, present_under
from datamodules.errors import CorpusError, InputError
from datamodules.iemocap import IEMOCAP
from datamodules.needs import DataNeeds
from datamodules.privileged import Privileged
from datamodules.storage.check import CheckReport, check_corpus
from datamodules.storage.layouts import IEMOCAP_LAYOUT
from ifmmin.cli.check import render_check
from tests.datamodules.corpora import change_features, load_ids, take_out, utterance_id, write_corpus, write_split

NAMES = [utterance_id("IEMOCAP", number) for number in range(60)]
GAPS = {
    NAMES[5]: "v",
    NAMES[12]: "av",
    NAMES[13]: "v",
    NAMES[24]: "t",
    NAMES[27]: "avt",
    NAMES[38]: "at",
    **{name: "v" for name in NAMES if name.startswith("Ses01F_impro01_F")},  # all that fold 1 tests
}
HAS = {name: "".join(letter for letter in "avt" if letter not in GAPS.get(name, "")) for name in NAMES}


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "complete", utterances=60)
    return tmp_path / "complete"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "gaps", utterances=60)
    take_out(tmp_path / "gaps", IEMOCAP_LAYOUT, GAPS)
    return tmp_path / "gaps"


def fitted(root: Path, fold: int = 3, **options: Any) -> IEMOCAP:
    data = IEMOCAP(str(root), fold, **options)
    data.setup("fit")
    return data


def epoch_of(data: EmotionDataModule, epoch: int = 0) -> list[Batch]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return list(loader)


def equal(ours: Batch, theirs: Batch) -> None:
    assert ours.utterances == theirs.utterances
    for one, other in zip(ours.frames, theirs.frames, strict=True):
        assert torch.equal(one, other)
    for name in ("lengths", "index", "labels", "row", "present"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_gaps_are_refused_by_default_and_the_line_names_the_option(root: Path) -> None:
    first = next(name for name in load_ids(root, 3, "trn") if "a" not in HAS[name])
    with pytest.raises(
        CorpusError, match=rf"utterance {first}: not in this file .*--data\.incomplete keep \(or drop\)"
    ):
        fitted(root)
    lines = check_corpus(root, IEMOCAP_LAYOUT).lines
    assert len(lines) == 3
    assert all("--data.incomplete keep (or drop)" in line for line in lines)


@pytest.mark.parametrize("option", ["refuse", "drop", "keep"])
def test_a_complete_corpus_is_the_same_whatever_the_option(complete: Path, option: str) -> None:
    data, plain = fitted(complete, incomplete=option), fitted(complete)
    assert data.fingerprint == plain.fingerprint
    for epoch in (0, 3):
        for ours, theirs in zip(epoch_of(data, epoch), epoch_of(plain, epoch), strict=True):
            equal(ours, theirs)
    assert check_corpus(complete, IEMOCAP_LAYOUT.with_options({"incomplete": option})).summary.available == {}


@pytest.mark.parametrize("budget", [1.0, 0.0], ids=["memory", "disk"])
@pytest.mark.parametrize("needs", [DataNeeds(), DataNeeds(hidden_frames=False), DataNeeds(steps=3)], ids=str)
def test_to_drop_is_to_list_the_complete_utterances_alone(root: Path, budget: float, needs: DataNeeds) -> None:
    dropped = fitted(root, incomplete="drop", memory_budget_gb=budget)
    numbers = {name: position for position, name in enumerate(NAMES)}
    for prefix in ("trn", "val", "tst"):
        kept = [name for name in load_ids(root, 3, prefix) if HAS[name] == "avt"]
        labels = np.array([(numbers[name] + numbers[name] // 10) % 4 for name in kept])
        write_split(root, "IEMOCAP", 3, prefix, kept, labels)
    listed = fitted(root, memory_budget_gb=budget)
    assert dropped.fingerprint == listed.fingerprint
    for data in (dropped, listed):
        data.serve(needs, 16)
    for ours, theirs in zip(epoch_of(dropped), epoch_of(listed), strict=True):
        equal(ours, theirs)
    for split in ("train", "val", "test"):
        assert [dropped.corpus.utterances[i] for i in dropped.indices(split)] == [
            listed.corpus.utterances[i] for i in listed.indices(split)
        ]


@pytest.mark.parametrize("budget", [1.0, 0.0], ids=["memory", "disk"])
@pytest.mark.parametrize("needs", [DataNeeds(), DataNeeds(hidden_frames=False), DataNeeds(steps=3)], ids=str)
def test_to_keep_is_to_train_on_what_is_there(root: Path, budget: float, needs: DataNeeds) -> None:
    data = fitted(root, incomplete="keep", memory_budget_gb=budget, batch_size=16)
    data.serve(needs, 16)
    drawn = mask_sampler("uniform")
    seen: dict[str, set[str]] = {}
    for epoch in range(40):
        names = []
        for batch in epoch_of(data, epoch):
            wanted = drawn(utterance_keys(batch.utterances), 0, epoch)
            for row, name in enumerate(batch.utterances):
                there = np.array(present_under(HAS[name]))
                assert batch.available[row].tolist() == there.tolist()
                shown = batch.present[row].numpy()
                if (wanted[row] & there).any():
                    assert shown.tolist() == (wanted[row] & there).tolist()
                assert shown.any()
                assert not (shown & ~there).any()
                seen.setdefault(name, set()).add("".join(np.array(list("avt"))[shown]))
            names += batch.utterances
        assert sorted(names) == sorted(name for name in load_ids(root, 3, "trn") if HAS[name])
    for name, conditions in seen.items():
        assert conditions == {c for c in CONDITIONS if set(c) <= set(HAS[name])} - {"avt"}, name
    assert NAMES[27] not in seen  # it has nothing


def test_masks_with_gaps_depend_on_seed_epoch_and_id_alone(root: Path) -> None:
    def masks(**options: Any) -> dict[str, list[bool]]:
        batches = epoch_of(fitted(root, incomplete="keep", **options), 7)
        return {
            name: row for batch in batches for name, row in zip(batch.utterances, batch.present.tolist(), strict=True)
        }

    plain = masks()
    assert masks(batch_size=5, workers=1) == plain
    assert masks(memory_budget_gb=0, eval_batch_size=3) == plain
    assert masks(seed=1) != plain


def test_evaluation_has_every_condition_on_the_utterances_that_have_all_its_modalities(root: Path) -> None:
    data = fitted(root, incomplete="keep", fold=1)
    assert sorted(name for batch in data.test_dataloader() for name in batch.utterances) == sorted(
        name for name in load_ids(root, 1, "tst") if HAS[name]
    )
    assert {tuple(row) for batch in data.test_dataloader() for row in batch.available.tolist()} == {(True, False, True)}


def test_what_is_left_out_or_kept_is_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ifmmin"):
        fitted(root, incomplete="keep")
        fitted(root, incomplete="drop")
    lacking = sum(has != "avt" for has in HAS.values())
    counts = ", ".join(f"{sum(m[0] not in has for has in HAS.values())} {m}" for m in ("audio", "visual", "text"))
    found = f"{root}: {lacking} of 60 utterances lack a modality ({counts})"
    assert [record.getMessage() for record in caplog.records] == [
        f"{found}; they are kept, 1 without any left out.",
        f"{found}; they are left out.",
    ]


def rendered(report: CheckReport) -> str:
    console = Console(width=400, file=io.StringIO(), record=True)
    console.print(render_check(report))
    return console.export_text()


@pytest.mark.parametrize("option", ["refuse", "drop", "keep"])
def test_check_counts_what_utterances_have_and_the_folds_that_are_used(root: Path, option: str) -> None:
    report = check_corpus(root, IEMOCAP_LAYOUT.with_options({"incomplete": option}))
    expected = {c: n for c in ("", *CONDITIONS) if (n := sum(has == c for has in HAS.values()))}
    assert report.summary.available == report.to_dict()["facts"]["available"] == expected
    assert f"Labelled utterances have: 1 nothing, {expected['v']} {{v}}, " in rendered(report)
    assert f"{expected['at']} {{a,t}}, {expected['avt']} full {{a,v,t}}." in rendered(report)
    used = {"refuse": HAS, "keep": [n for n in HAS if HAS[n]], "drop": [n for n in HAS if HAS[n] == "avt"]}[option]
    for number, fold in report.summary.folds.items():
        for split, prefix in (("train", "trn"), ("val", "val"), ("test", "tst")):
            wanted = sum(name in used for name in load_ids(root, number, prefix))
            assert sum(fold.counts[split].values()) == wanted
    notes = [
        note for note in map(str, report.notes.found) if "no utterance of" not in note
    ]  # small splits lack classes
    if option == "refuse":
        assert (len(report.lines), notes) == (3, [])
    elif option == "keep":
        lacking = sum(has != "avt" for has in HAS.values())
        assert report.lines == []
        assert notes == [
            f"{root}: {lacking} of 60 labelled utterances lack a modality; 1 are left out, the others kept."
        ]
    else:  # nothing is left of what fold 1 tests, which is fold 2's validation
        assert len(report.lines) == 2
        assert re.search(r"target/1: nothing is left of test; extract", report.lines[0])
        assert re.search(r"target/2: nothing is left of val; extract", report.lines[1])


def test_a_split_of_which_nothing_is_left_is_refused(root: Path) -> None:
    with pytest.raises(
        CorpusError, match=r"target/1: no utterance of test has all modalities; extract what is missing"
    ):
        fitted(root, incomplete="drop", fold=1)


@pytest.mark.parametrize("option", ["drop", "keep"])
def test_ids_that_do_not_match_are_no_gaps(root: Path, option: str) -> None:
    for prefix in ("trn", "val", "tst"):
        ids = load_ids(root, 3, prefix)
        write_split(root, "IEMOCAP", 3, prefix, [f"{name}.wav" for name in ids], np.zeros(len(ids), dtype=np.int64))
    with pytest.raises(CorpusError, match=r"holds none of 60 utterances .*--data\.match_ids suffix"):
        fitted(root, incomplete=option)
    assert fitted(root, incomplete=option, match_ids="suffix").corpus_size in (
        59,
        sum(h == "avt" for h in HAS.values()),
    )
    report = check_corpus(root, IEMOCAP_LAYOUT.with_options({"incomplete": option}), [3])
    assert sum("--data.match_ids suffix" in line for line in report.lines) == 3


@pytest.mark.parametrize("option", ["refuse", "drop", "keep"])
def test_zero_frames_that_count_as_absent_follow_the_option(complete: Path, option: str) -> None:
    change_features(IEMOCAP_LAYOUT.feature_path(complete, 1), {NAMES[14]: np.zeros((3, 6), dtype=np.float32)})
    data = fitted(complete, incomplete=option, zero_frames_absent=True)
    assert (NAMES[14] in data.corpus.utterances) == (option != "drop")
    assert data.corpus_size == 60 - (option == "drop")


def test_the_record_names_the_option_and_statistics_are_of_what_is_there(root: Path) -> None:
    data = fitted(root, incomplete="keep")
    record = data.checkpoint_record()
    assert record["incomplete"] == "keep"
    assert fitted(root, incomplete="drop").fingerprint != data.fingerprint
    audio = [data.corpus.frames[0].utterance(int(index)).numpy() for index in data.indices("train")]
    assert record["statistics"]["audio"]["mean"].numpy() == pytest.approx(np.concatenate(audio).mean(axis=0), rel=1e-5)
    assert sum(len(frames) == 0 for frames in audio) == 1


def test_an_unknown_choice_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"--data\.incomplete 'ignore': choose one of refuse, drop, keep"):
        IEMOCAP(str(root), incomplete="ignore")  # type: ignore[arg-type]


def test_the_bayes_rule_answers_for_those_who_have_a_condition(tmp_path: Path) -> None:
    data = Privileged(str(tmp_path), utterances=5)
    tested = [f"fold01_test{number:05d}" for number in range(2000)]
    take_out(data.root, data.layout, dict.fromkeys(tested[:1500], "t") | dict.fromkeys(tested[1800:], "av"))
    data = Privileged(str(tmp_path), utterances=5, incomplete="keep")
    data.setup("test")
    source, limits = data.source, data.bayes_accuracy("test")
    for condition, chosen in {"a": range(1800), "t": range(1500, 2000), "at": range(1500, 1800)}.items():
        right = 0
        for number in list(chosen)[::7]:
            position = data.corpus.utterances.index(tested[number])
            frames = [data.corpus.frames[m].utterance(position).numpy() for m in range(3)]
            shown = [f if letter in condition else None for letter, f in zip("avt", frames, strict=True)]
            right += int(source.log_posterior(shown).argmax() == data.labels[position])
        sample = len(list(chosen)[::7])
        assert abs(limits[condition] - right / sample) < 4 * (0.25 / sample) ** 0.5
