"""Whatever is wrong outside the code: one clear line, a non-zero exit, no traceback, nothing half-written."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ifmmin.cli.main import main
from tests.cli.running import SAMPLES, SMALL, best, fit, fresh, sample

Spoil = Callable[[Path], None]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return best(fit(tmp_path_factory.mktemp("fitted") / "run", *sample("IEMOCAP")))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a command fails with."""
    capsys.readouterr()
    assert main(list(words)) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    (line,) = [line for line in lines if not line.startswith("note: ")]
    assert line.startswith("error: ")
    return line


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit"], "--model is needed. There are:"),
        (["fit", "--model", "IFMIN"], "Did you mean IFMMIN?"),
        (["fit", "--model", "IFMMIN", "--data", "IEMOCAPP"], "Did you mean IEMOCAP?"),
        (["fit", "--model", "IFMMIN", "--data", "IEMOCAP"], "--data.root is needed"),
        (["fit", "--model", "IFMMIN", "--data", "IEMOCAP", "--data.root", "nowhere"], "nowhere: does not exist"),
        (["fit", "--model", "IFMMIN", "--model.lamda_img", "1"], "Did you mean --model.lambda_img?"),
        (["fit", "--model", "IFMMIN", "--model.lambda_img", "much"], "lambda_img: Expected a float"),
        (["fit", "--model", "IFMMIN", "--model.feature_dims", "[1,2,3]"], "follows the data"),
        (["fit", "--model", "IFMMIN", *SMALL, "--model.batch_size", "-1"], "batch_size -1: it must be at least 1"),
        (["fit", "--model", "IFMMIN", "--seed_everything", "true"], "--seed_everything true"),
        (["fit", "--model", "IFMMIN", "--seed_everything=-3"], "--seed_everything -3"),
        (["fit", "--model", "IFMMIN", "--data.seed", "1"], "follows --seed_everything"),
        (["fit", "--model", "IFMMIN", *SMALL, "--data.fold", "0"], "fold 0: Synthetic has folds 1..5"),
        (["fit", "--model", "IFMMIN", *SMALL, "--data.train_mask", "av,t"], "--data.train_mask 'av,t': give"),
        (["fit", "--model", "IFMMIN", *SMALL, "--data.train_mask", "1.5"], "missing rate 1.5"),
        (["fit", "--model", "IFMMIN", *SMALL, "--data.train_mask", "0,0.5,1"], "missing rate 1.0 of text"),
        (
            ["fit", "--model", "IFMMIN", *SMALL, "--data.train_pattern", "frames:2"],
            "train_pattern 'frames:2': rate 2 of",
        ),
        (["test", "--model", "IFMMIN", *SMALL, "--data.eval_pattern", "dust:1"], "--ckpt_path is needed"),
        (
            ["check", "--data", "Synthetic", "--data.train_pattern", "dust:1"],
            "--data.train_pattern 'dust:1': give frames:",
        ),
        (["fit", "--model", "IFMMIN", *SMALL, "--curves", "frame"], "--curves frame: give all, or some of modalities"),
        (["fit", "--model", "IFMMIN", *SMALL, "--data.conditions", '["x"]'], "condition 'x'"),
        (["fit", "--model", "IFMMIN", *SMALL, "--data.batch_size", "0"], "batch_size 0"),
        (["fit", "--model", "IFMMIN", *SMALL, "--model.pretrained", "none.ckpt"], "none.ckpt"),
        (["test", "--model", "IFMMIN"], "--ckpt_path is needed"),
        (["predict", "--model", "IFMMIN", "--ckpt_path", "none.ckpt"], "none.ckpt: there is no such checkpoint file"),
        (["check", "--data", "Iemocap", "--data.root", "x"], "Did you mean IEMOCAP?"),
    ],
)
def test_words(words: list[str], expected: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in complaint(capsys, *words)
    assert not files(here)


def test_nothing_to_select_the_best_epoch_by(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--model", "ModalityDropout", *SMALL, "--data.conditions", '["avt"]']
    assert "give at least one of them" in complaint(capsys, *words)


def truncate(root: Path) -> None:
    path = root / "V/denseface.h5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def forget_an_utterance(root: Path) -> None:
    with h5py.File(root / "L/bert_large.h5", "a") as file:
        del file["Ses01F_impro00_F0003"]


def put_a_nan(root: Path) -> None:
    with h5py.File(root / "A/comparE.h5", "a") as file:
        file["Ses01F_impro00_F0004"][2, 1] = np.nan


def empty_an_utterance(root: Path) -> None:
    with h5py.File(root / "A/comparE.h5", "a") as file:
        del file["Ses01F_impro00_F0005"]
        file["Ses01F_impro00_F0005"] = np.zeros((0, 26), np.float32)


def relabel(root: Path) -> None:
    path = root / "target/1/trn_label.npy"
    labels = np.load(path)
    np.save(path, np.where(np.arange(len(labels)) == 7, 4, labels.argmax(axis=1)))


def leak_a_speaker(root: Path) -> None:
    fold = root / "target/1"
    for kind in ("label", "int2name"):
        train, test = (np.load(fold / f"{split}_{kind}.npy") for split in ("trn", "tst"))
        np.save(fold / f"trn_{kind}.npy", np.concatenate([train, test[:1]]))
        np.save(fold / f"tst_{kind}.npy", test[1:])


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda root: (root / "V/denseface.h5").unlink(), ["V/denseface.h5"]),
        (truncate, ["V/denseface.h5", "copy it again"]),
        (forget_an_utterance, ["L/bert_large.h5", "Ses01F_impro00_F0003"]),
        (put_a_nan, ["A/comparE.h5", "Ses01F_impro00_F0004"]),
        (empty_an_utterance, ["A/comparE.h5", "Ses01F_impro00_F0005", "no frames"]),
        (relabel, ["trn_label.npy", "4"]),
        (leak_a_speaker, ["target/1", "speaker Ses01F", "leaked"]),
        (lambda root: (root / "target/1/val_label.npy").unlink(), ["val_label.npy"]),
        (lambda root: shutil.rmtree(root / "target/1"), ["target/1"]),
    ],
    ids=["no file", "truncated", "no features", "NaN", "no frames", "label", "speaker", "no labels", "no fold"],
)
def test_corpora(spoil: Spoil, expected: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = here / "corpus"
    shutil.copytree(SAMPLES["IEMOCAP"], root)
    spoil(root)
    before = files(here)
    line = complaint(capsys, "fit", "--model", "IFMMIN", "--data", "IEMOCAP", "--data.root", str(root))
    for part in expected:
        assert part in line
    assert files(here) == before
    # The check says so too, together with everything else, one line each.
    capsys.readouterr()
    assert main(["check", "--data", "IEMOCAP", "--data.root", str(root)]) == 1
    problems = [line for line in capsys.readouterr().out.splitlines() if line.startswith("- ")]
    assert any(expected[0] in line and line.endswith(".") for line in problems)


def test_a_fold_that_does_not_exist(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(capsys, "fit", "--model", "IFMMIN", *sample("IEMOCAP"), "--data.fold", "11")
    assert "fold 11: IEMOCAP has folds 1..10" in line


def test_a_copied_fold_is_noticed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = here / "corpus"
    shutil.copytree(SAMPLES["IEMOCAP"], root)
    shutil.rmtree(root / "target/8")
    shutil.copytree(root / "target/7", root / "target/8")
    words = ["--data", "IEMOCAP", "--data.root", str(root)]
    assert main(["fit", "--model", "FusionPretraining", *words, "--data.fold", "8", "--trainer.max_epochs", "1"]) == 0
    assert "copy of fold 7" in capsys.readouterr().err
    assert main(["check", *words]) == 1


def test_shipped_statistics_that_include_test_data_are_noticed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = here / "corpus"
    shutil.copytree(SAMPLES["IEMOCAP"], root)
    words = ["fit", "--model", "FusionPretraining", "--data", "IEMOCAP", "--data.root", str(root)]
    assert main([*words, "--trainer.max_epochs", "1"]) == 0
    assert "differs" not in capsys.readouterr().err
    with h5py.File(root / "A/comparE_mean_std.h5", "a") as file:
        file["1/mean"][...] = file["1/mean"][()] + 0.1
    assert main([*words, "--trainer.max_epochs", "1"]) == 0
    assert "comparE_mean_std.h5: fold 1 differs" in capsys.readouterr().err


def test_a_checkpoint_of_another_model(checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["test", "--model", "InvariantPretraining", *sample("IEMOCAP"), "--ckpt_path", str(checkpoint)]
    assert "a checkpoint of IFMMIN, not of InvariantPretraining" in complaint(capsys, *words)


def test_a_checkpoint_of_other_features(checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(capsys, "test", "--model", "IFMMIN", *SMALL, "--ckpt_path", str(checkpoint))
    assert "frames of 24 values" in line
    assert "was trained on frames of 26" in line


def test_a_checkpoint_of_another_fold(checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["test", "--model", "IFMMIN", *sample("IEMOCAP"), "--data.fold", "2", "--ckpt_path", str(checkpoint)]
    assert "trained on fold 1" in complaint(capsys, *words)


def test_a_stage_1_of_another_architecture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage1 = best(fit(here / "stage1", *SMALL, "--model.embedding_dim", "16", model="InvariantPretraining"))
    line = complaint(capsys, "fit", "--model", "IFMMIN", *SMALL, "--model.pretrained", str(stage1))
    assert "stage 1 has embedding_dim 16; give that to IFMMIN too" in line


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (Path.touch, (Path("exploded"),))  # type: ignore[return-value]


@pytest.mark.parametrize("how", ["torch", "pickle", "truncated", "stranger"])
def test_a_strangers_checkpoint_executes_nothing(
    how: str, checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = here / "strange.ckpt"
    if how == "torch":
        torch.save({"state_dict": {}, "ifmmin": Bomb()}, path)
    elif how == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif how == "truncated":
        path.write_bytes(checkpoint.read_bytes()[:5000])
    else:
        torch.save({"state_dict": {}}, path)
    line = complaint(capsys, "test", "--model", "IFMMIN", *sample("IEMOCAP"), "--ckpt_path", str(path))
    assert "strange.ckpt: not a" in line
    assert not (here / "exploded").exists()


def test_a_loss_that_is_no_number_stops_the_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "fit",
        "--model",
        "FusionPretraining",
        *SMALL,
        "--model.learning_rate",
        "1e30",
        "--trainer.max_epochs",
        "5",
    ]
    assert "loss is nan after epoch 1" in complaint(capsys, *words)


def test_a_full_disk(here: Path) -> None:
    small = [*SMALL, "--data.root", str(here / "corpus")]
    assert main(["fit", "--model", "FusionPretraining", *small, "--trainer.max_epochs", "1", "--run_dir", "first"]) == 0
    # No file may grow beyond 200 kB: a checkpoint cannot be written, as on a full disk.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    words = ["fit", "--model", "FusionPretraining", *small, "--trainer.max_epochs", "1", "--run_dir", "second"]
    done = fresh(*words, cwd=here, prelude=limit)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr.strip().splitlines()[-1]
    assert not list((here / "second").rglob("*.ckpt"))
