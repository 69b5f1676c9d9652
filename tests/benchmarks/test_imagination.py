"""What models imagine and have inside: against loops, planted features, known dead units and averages by hand."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor, nn

from baselines import ModalityDropout
from benchmarks.imagination.__main__ import main
from benchmarks.imagination.dead_units import ALL, count_units
from benchmarks.imagination.entries import Entry, Run, make_entries
from benchmarks.imagination.measures import explained_variance, gradient_norms
from benchmarks.imagination.picture import imagination_figure
from benchmarks.imagination.probes import Features, chance, read_features, told
from benchmarks.imagination.subjects import subjects_of
from benchmarks.leaderboard import running
from benchmarks.leaderboard.plan import make_jobs, sort_settings
from benchmarks.leaderboard.records import RECORDS, append, read_records
from datamodules.batches.batch import Batch
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS, MODALITIES, present_under
from datamodules.synthetic import Synthetic
from ifmmin.base import MissingModalityModule
from ifmmin.discovery import Models
from ifmmin.model import IFMMIN
from ifmmin.runs import finished_stage1
from tests.cli.running import SAMPLES, SMALL, best, fit

Row = dict[str, str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("imagination") / "run", *SMALL, epochs=2)


@pytest.fixture(scope="module")
def data() -> Synthetic:
    data = Synthetic(utterances_per_speaker=12)
    data.setup("fit")
    return data


@pytest.fixture
def model(run: Path) -> IFMMIN:
    return IFMMIN.load_from_checkpoint(best(run)).eval()


def rows_of(path: Path, **wanted: str) -> list[Row]:
    """Lines of a CSV that have these cells."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if wanted.items() <= row.items()]


def values_of(rows: list[Row]) -> dict[tuple[str, str], float]:
    return {(row["measure"], row["of"]): float(row["value"]) for row in rows}


# Explained variance.


class Imagining(MissingModalityModule):
    """Imagines ``share`` of the way from ``middle`` to the truth, and nonsense in place of what is present."""

    def __init__(self, share: float) -> None:
        super().__init__(feature_dims=[130, 342, 1024], class_names=list("ahns"))
        self.share, self.middle = share, torch.zeros(3, 4)

    def truth(self, batch: Batch) -> Tensor:
        table = torch.randn(200, 3, 4, generator=torch.Generator().manual_seed(0))
        return table[batch.index[batch.row]]

    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        true = self.truth(batch)
        imagined = self.middle + self.share * (true - self.middle)
        return imagined.masked_fill(batch.present[..., None], 1e6), true

    def forward(self, batch: Batch) -> Tensor:
        raise AssertionError

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        raise AssertionError


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1.0), (0.0, 0.0), (0.5, 0.75), (-1.0, -3.0)])
def test_explained_variance_of_a_known_share(share: float, expected: float, data: Synthetic) -> None:
    model = Imagining(share)
    model.middle = torch.cat([model.truth(batch.unmasked()) for batch in data.in_order("train")]).mean(dim=0)
    found = explained_variance(model, data)
    assert list(found) == list(MODALITIES)
    assert list(found.values()) == pytest.approx(3 * [expected], abs=1e-5)


def alone(data: Synthetic, split: str) -> Iterator[Batch]:
    """Each utterance in a batch of its own."""
    for batch in data.in_order(split):
        for number in range(len(batch.utterances)):
            yield replace(batch, row=torch.tensor([number]), present=batch.available[number : number + 1])


@torch.no_grad()
def test_explained_variance_of_a_trained_model_utterance_by_utterance(model: IFMMIN, data: Synthetic) -> None:
    train = [model.teacher.encoders(one)[0].numpy().astype(float) for one in alone(data, "train")]
    mean, error, spread = np.mean(train, axis=0), np.zeros(3), np.zeros(3)
    for one in alone(data, "val"):
        true = model.teacher.encoders(one)[0].numpy().astype(float)
        for condition in MISSING_CONDITIONS:
            h = model.encoders(replace(one, present=torch.tensor([present_under(condition)])))
            imagined, _ = model.imagination(h.flatten(1), model.invariance(h).flatten(1))
            guess = imagined[0].numpy().reshape(3, -1)
            for modality in range(3):
                if "avt"[modality] not in condition:
                    error[modality] += ((guess[modality] - true[modality]) ** 2).sum()
                    spread[modality] += ((mean[modality] - true[modality]) ** 2).sum()
    found = explained_variance(model, data)
    assert list(found.values()) == pytest.approx((1 - error / spread).tolist(), rel=1e-4)


# Probes.


def planted(seed: int, tells: str, scale: float = 1.0) -> Features:
    """Noise with a shift by the modality, by the emotion, or by nothing."""
    rng = np.random.default_rng(seed)
    modality, emotion = np.tile([0, 1, 2], 300), rng.choice(4, 900, p=[0.4, 0.3, 0.2, 0.1])
    target = {"modality": modality, "emotion": emotion, "nothing": np.zeros_like(modality)}[tells]
    values = rng.standard_normal((900, 6)) + 6 * np.eye(6)[target]
    return Features(scale * values, {"modality": modality, "emotion": emotion})


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_probes_tell_what_was_planted_whatever_its_scale(scale: float) -> None:
    for tells in ("modality", "emotion", "nothing"):
        train, held_out = planted(0, tells, scale), planted(1, tells, scale)
        for target in ("modality", "emotion"):
            expected = 1.0 if target == tells else chance(train, held_out, target)
            assert told(train, held_out, target) == pytest.approx(expected, abs=0.06)


def test_chance_is_the_share_of_the_most_frequent_training_label() -> None:
    train, held_out = planted(0, "nothing"), planted(1, "nothing")
    assert chance(train, held_out, "modality") == pytest.approx(1 / 3)
    assert chance(train, held_out, "emotion") == np.mean(held_out.targets["emotion"] == 0)


@torch.no_grad()
def test_features_are_those_of_the_utterances_alone(model: IFMMIN, data: Synthetic) -> None:
    found = read_features(model.invariant_features, data, "val")
    assert found is not None
    each = np.stack([model.invariance(model.encoders(one))[0].numpy() for one in alone(data, "val")])
    np.testing.assert_allclose(found.values, each.reshape(-1, each.shape[-1]), atol=1e-5)
    assert found.targets["modality"].tolist() == [0, 1, 2] * len(each)
    labels = [int(one.label[0]) for one in alone(data, "val")]
    assert found.targets["emotion"].tolist() == np.repeat(labels, 3).tolist()
    assert found.spread() == pytest.approx(each.std(axis=0, ddof=1).mean(), rel=1e-5)


# Dead units.


class Units(MissingModalityModule):
    """Of 6 channels of a convolution 2 are dead, of 5 units 3, one of which the losses alone activate."""

    def __init__(self) -> None:
        super().__init__(feature_dims=[130, 342, 1024], class_names=list("ahns"))
        self.convolution = nn.Sequential(nn.Conv1d(1, 6, 3), nn.ReLU())
        self.layer = nn.Sequential(nn.Linear(6, 5), nn.LeakyReLU())
        self.frozen = nn.Sequential(nn.Linear(5, 7), nn.ReLU()).requires_grad_(False)
        self.unused = nn.Sequential(nn.Linear(5, 7), nn.ReLU())
        with torch.no_grad():
            for network, values in ((self.convolution, [-1.0, -1, 1, 1, 1, 1]), (self.layer, [-1.0, -1, -1, 1, 1])):
                weight, bias = network[0].parameters()
                weight.zero_()
                bias.copy_(torch.tensor(values))

    def forward(self, batch: Batch) -> Tensor:
        channels = self.convolution(torch.zeros(len(batch), 1, 9)).mean(dim=-1)
        hidden: Tensor = self.frozen(self.layer(channels))
        return hidden[:, :4] - hidden.relu().sum()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        moved = self.layer[1](torch.tensor([[1.0, -1, -1, -1, -1]]))
        return {"cls": self(batch).mean() + moved.sum()}


def test_dead_units_of_a_network_made_by_hand(data: Synthetic) -> None:
    assert count_units(Units(), data) == {"convolution": (2, 6), "layer": (2, 5), ALL: (4, 11)}


def test_units_are_alive_if_one_row_of_the_split_activates_them(model: IFMMIN, data: Synthetic) -> None:
    found = count_units(model, data)["classifier"]
    active: dict[str, Tensor] = {}
    with torch.no_grad():
        for one in alone(data, "val"):
            for condition in CONDITIONS:
                values = model.imagine(replace(one, present=torch.tensor([present_under(condition)]))).joint
                for name, module in model.classifier.hidden.named_children():
                    values = module(values)
                    if isinstance(module, nn.ReLU):
                        active[name] = active.get(name, torch.zeros(1)) + values[0]
    assert found == (sum(int((total == 0).sum()) for total in active.values()), 256)


# Losses and gradients.


def test_gradient_norms_are_those_of_backward(model: IFMMIN, data: Synthetic) -> None:
    norms = gradient_norms(model, data)
    # The invariance loss does not pass through imagination or classifier; all terms reach the encoders.
    assert norms["inv"]["imagination"] == norms["inv"]["classifier"] == norms["img"]["classifier"] == 0
    assert all(terms["encoders.text"] > 0 for terms in norms.values())
    model.zero_grad()
    losses = model.losses(next(iter(data.train_dataloader())))
    (model.loss_weights["inv"] * losses["inv"]).backward()
    naive = sum(float(p.grad.square().sum()) for p in model.invariance.parameters() if p.grad is not None) ** 0.5
    assert norms["inv"]["invariance"] == pytest.approx(naive, rel=1e-4)
    assert norms["inv"]["value"] == pytest.approx(100 * losses["inv"].item(), rel=1e-5)


def test_losses_are_those_of_the_first_and_the_last_epoch_in_the_runs_own_log(run: Path, tmp_path: Path) -> None:
    assert main([str(run), "--output", str(tmp_path)]) == 0
    found = values_of(rows_of(tmp_path / "imagination.csv", kind="run"))
    logged = [row for row in rows_of(run / "logs" / "metrics.csv") if row["train/img"]]
    assert len(logged) == 2
    for term in ("cls", "img", "inv"):
        assert found["loss_start", term] == float(logged[0][f"train/{term}"])
        assert found["loss_end", term] == float(logged[1][f"train/{term}"])


# The program.


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the leaderboard leaves of two models on two folds; in this process, which has imported everything."""
    folder = tmp_path_factory.mktemp("boards") / "board"
    models: Models = {"IFMMIN": IFMMIN, "ModalityDropout": ModalityDropout}
    settings = sort_settings([*SMALL, "--trainer.max_epochs", "1"], models)
    fingerprints = {}
    for fold in (1, 2):
        data = Synthetic(utterances_per_speaker=12, fold=fold)
        data.setup("fit")
        fingerprints[fold] = data.fingerprint
    for job in make_jobs(models, settings, fingerprints, [0], threads=1):
        assert all(running._fit(each, folder) == 0 for each in (job.stage1, job) if each)
        append(folder / RECORDS, running.make_record(job, folder))
    return folder


def test_a_board_is_averaged_over_its_runs(board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(board)]) == 0
    shown = capsys.readouterr().out.splitlines()
    lines = {line.split()[0]: line.split() for line in reversed(shown) if line.startswith((" IFMMIN ", " Modality"))}
    assert lines["ModalityDropout"][2:6] == 4 * ["–"] and "–" not in lines["IFMMIN"]
    path = board / "imagination" / "imagination.csv"
    for name in ("IFMMIN", "ModalityDropout"):
        means = {(row["measure"], row["of"]): row for row in rows_of(path, kind="mean", model=name)}
        runs = [values_of(rows_of(path, kind="run", model=name, fold=fold)) for fold in "12"]
        assert means.keys() == runs[0].keys() == runs[1].keys()
        assert (("explained_variance", "text") in means) == (name == "IFMMIN")
        for key, row in means.items():
            both = [one[key] for one in runs]
            assert float(row["value"]) == pytest.approx(np.mean(both)) and row["n"] == "2"
            assert float(row["std"]) == pytest.approx(np.std(both, ddof=1), abs=1e-12)
        (record,) = (one for one in read_records(board / RECORDS) if (one.model, one.fold) == (name, 2))
        assert main([str(board / record.run), "--output", str(tmp_path / name)]) == 0
        assert values_of(rows_of(tmp_path / name / "imagination.csv", kind="run")) == runs[1]
    pixels = imread(board / "imagination" / "imagination.png")
    assert min(pixels.shape[:2]) >= 600 and pixels[..., :3].std() > 0.05
    assert {path.suffix for path in (board / "imagination").iterdir()} == {".csv", ".png", ".pdf"}


def test_a_run_is_measured_with_its_own_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = fit(tmp_path / "run", *SMALL, "--seed_everything", "3", model="MeanFusion")
    (subject,) = subjects_of(trained)
    model, data = subject.load()
    assert data.seed == 3
    expected = Synthetic(utterances_per_speaker=12, seed=3)
    expected.setup("fit")
    expected.serve(replace(model.needs, hidden_frames=True), model.settings.batch_size)
    drawn, first = (next(iter(each.train_dataloader())) for each in (data, expected))
    assert drawn.utterances == first.utterances and torch.equal(drawn.present, first.present)
    assert main([str(trained)]) == 0
    assert "[1/1] MeanFusion fold 1 seed 3" in capsys.readouterr().out
    assert {row["seed"] for row in rows_of(trained / "imagination" / "imagination.csv", kind="run")} == {"3"}


def test_a_checkpoint_without_a_run_and_one_of_stage_1(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(best(run), tmp_path / "alone.ckpt")
    # By its record it is of the built-in corpus, which has another size by default.
    assert main([str(tmp_path / "alone.ckpt")]) == 1
    assert "not the data that" in capsys.readouterr().err
    stage1 = finished_stage1(run)
    assert stage1 is not None
    paths = [str(tmp_path / "alone.ckpt"), str(stage1)]
    assert main([*paths, "--data", "Synthetic", *SMALL]) == 0
    assert "(chance 33)" in capsys.readouterr().out
    written = tmp_path / "imagination" / "imagination.csv"
    first = values_of(rows_of(written, kind="run", model="InvariantPretraining"))
    assert first["loss_start", "cmd"] > 0 and ("explained_variance", "text") not in first
    second = values_of(rows_of(written, kind="run", model="IFMMIN"))
    assert ("loss_start", "inv") not in second and second["std", "H"] > 0


def test_a_corpus_of_files_that_have_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(SAMPLES["IEMOCAP"], tmp_path / "here")
    words = ["--data", "IEMOCAP", "--data.root"]
    folder = fit(tmp_path / "run", *words, str(tmp_path / "here"), model="MeanFusion")
    (tmp_path / "here").rename(tmp_path / "there")
    assert main([str(folder)]) == 1
    assert str(tmp_path / "here") in capsys.readouterr().err
    assert main([str(folder), *words, str(tmp_path / "there")]) == 0
    (loss,) = rows_of(folder / "imagination" / "imagination.csv", kind="mean", measure="loss_end")
    assert loss["corpus"] == "IEMOCAP" and float(loss["value"]) > 0


def test_wrong_input_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.yaml").touch()
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "records.jsonl").touch()
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    (tmp_path / "file").touch()
    other = ["--data", "Synthetic", "--data.utterances_per_speaker", "14"]
    expected: list[tuple[list[str], str]] = [
        ([str(tmp_path / "nowhere")], "no such checkpoint"),
        ([str(tmp_path / "empty")], "neither a board (records.jsonl) nor a run (config.yaml)"),
        ([str(tmp_path / "unfinished")], "fit --resume"),
        ([str(tmp_path / "board")], "no record in it"),
        ([str(tmp_path / "foreign.ckpt")], "not a checkpoint that a fit of this library wrote"),
        ([str(run), *other], "not the data that"),
        ([str(run), "--date", "Synthetic"], "--date: not known"),
        ([str(run), "--data", "Sintetic"], "Did you mean Synthetic?"),
        ([str(run), "--output", str(tmp_path / "file")], str(tmp_path / "file")),
    ]
    for words, message in expected:
        assert main(words) == 1, words
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_runs_of_a_board_that_are_gone_are_left_out(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(board, copy, ignore=shutil.ignore_patterns("imagination", "tensorboard"))
    gone, *_, last = [copy / record.checkpoint for record in read_records(copy / RECORDS)]
    gone.unlink()
    assert main([str(copy)]) == 0
    assert "left out: " in capsys.readouterr().out
    assert len({row["checkpoint"] for row in rows_of(copy / "imagination" / "imagination.csv", kind="run")}) == 3
    for path in copy.rglob("*.ckpt"):
        path.unlink()
    assert main([str(copy)]) == 1
    assert "none of its runs can be measured" in capsys.readouterr().err and not last.exists()


# Entries and the picture.


def fake(model: str, seed: int, board: str = "", **options: Any) -> Run:
    rng = np.random.default_rng(seed)
    values = {("explained_variance", name): -1.5 * rng.random() for name in MODALITIES}
    values |= {("modality_told", "h"): 1.0, ("modality_told", "chance"): 1 / 3, ("std", "H/h"): 0.01}
    values |= {("dead_units", part): rng.random() for part in ("encoders.text", ALL)}
    for term, end in (("cls", 0.5), ("img", 1e-3), ("nll", -2.0)):
        values |= {("loss_start", term): 3.0, ("loss_end", term): end, ("weighted_loss", term): 1.0}
        values["gradient", f"{term}/classifier"] = 0.0 if term == "img" else 1.0
    return Run(model, options, "Synthetic", True, False, 1, seed, board, f"{seed}.ckpt", values)


def labels(entries: list[Entry]) -> dict[str, int]:
    return {entry.label: len(entry.runs) for entry in entries}


def test_runs_are_averaged_only_with_the_same_options_and_board() -> None:
    runs = [fake("MMIN", seed, pretrained=f"{seed}.ckpt", blocks=5) for seed in range(3)]
    assert labels(make_entries(runs)) == {"MMIN": 3}
    runs += [fake("MMIN", 3, blocks=2, pretrained=None), fake("IFMMIN", 0)]
    assert labels(make_entries(runs)) == {"IFMMIN": 1, "MMIN (blocks 5)": 3, "MMIN (blocks 2)": 1}
    on_boards = [fake("MMIN", seed, board) for board in ("one", "two") for seed in range(2)]
    assert labels(make_entries(on_boards)) == {"MMIN [one]": 2, "MMIN [two]": 2}
    silent = replace(fake("AAA", 0), values={("weighted_loss", "cls"): 1.0})
    assert list(labels(make_entries([silent, fake("BBB", 0)]))) == ["BBB", "AAA"]


def test_the_picture_of_twelve_models_is_readable() -> None:
    names = ["IFMMIN", "MMINWithoutCycle", "ModalityDropout", "CompleteFusion", *(f"Model{n}" for n in range(7))]
    runs = [fake(name, seed) for name in names for seed in range(2)]
    runs.append(fake("IFMMIN", 0, discrepancy="bounded", cascade_init="scaled"))
    published = {"discrepancy": "published", "cascade_init": "published"}
    runs = [replace(run, options={**published, **run.options}) for run in runs]
    runs[0].values["std", "H/h"] = runs[1].values["std", "H/h"] = 0.0  # no place on a logarithmic axis
    entries = make_entries(runs)
    figure = imagination_figure(entries)
    assert len(entries) == 12
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == 12 and all(box.x0 >= 0 for box in boxes)
    assert all(upper.y0 > lower.y1 for upper, lower in pairwise(boxes))
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"3 → -2", "0", "cls", "img", "nll"} <= texts
    titles = [axes.get_title().partition("\n")[0] for axes in figure.axes]
    assert titles[:2] == ["explained variance", "std H / std h"] and "emotion told" not in titles
