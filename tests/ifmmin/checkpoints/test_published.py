"""Released checkpoints of the published code, written here from the reference parameters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.mmin import MMIN, MMINWithoutCycle
from datamodules.errors import InputError
from ifmmin.checkpoints.parts import read_stage1
from ifmmin.checkpoints.reading import load_safely
from ifmmin.cli.main import main
from ifmmin.model import IFMMIN
from ifmmin.pretraining.stage1 import FusionPretraining, InvariantPretraining, Pretraining
from ifmmin.pretraining.stage2 import PretrainedModule
from tests.datamodules.corpora import truncate, write_corpus
from tests.golden import CLASSES, DIMS, ENCODERS, GOLDEN, close, golden_batch, in_our_order, load, networks

NETWORKS: dict[type[PretrainedModule], tuple[str, ...]] = {
    IFMMIN: ("Shared", "IFIM", "C"),
    MMIN: ("AE", "AE_cycle", "C"),
    MMINWithoutCycle: ("AE", "C"),
}
OUTPUTS = {IFMMIN: "ifmmin", MMIN: "mmin", MMINWithoutCycle: "mmin"}


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def write(folder: Path, who: str, *names: str, epoch: str = "60", **renamed: str) -> Path:
    """Save networks as the published code does; the old zip-less format of its time for one of them."""
    folder.mkdir(exist_ok=True)
    for net, state in networks(who, *names, **renamed).items():
        torch.save(state, folder / f"{epoch}_net_{net}.pth", _use_new_zipfile_serialization=net != "V")
    return folder


def refusal(kind: type[PretrainedModule], folder: Path, **options: Any) -> str:
    """The message of the error, which is one line and names the folder."""
    with pytest.raises(InputError) as caught:
        kind.from_published(folder, **{"class_names": CLASSES, **options})
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(folder))
    assert len(message) < 400
    return message


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_released_checkpoint_becomes_the_model(kind: type[PretrainedModule], tmp_path: Path) -> None:
    folder = write(tmp_path / "stage2", "student", *NETWORKS[kind])
    teacher = write(tmp_path / "stage1", "teacher", "Shared")
    model, batch = kind.from_published(folder, CLASSES, teacher=teacher).eval(), golden_batch()
    assert model.taught
    for part in (model.encoders, model.teacher.encoders):
        for encoder, count in zip(part.encoders(), ENCODERS["absent_frames"], strict=True):
            encoder.absent_frames = count
    name = OUTPUTS[kind]
    close(model(batch), GOLDEN[f"out/{name}/logits"])
    total = "loss_nocycle" if kind is MMINWithoutCycle else "loss"
    close(model.total_loss(model.losses(batch)), GOLDEN[f"out/{name}/{total}"])
    assert dict(model.hparams) | {"feature_dims": DIMS, "embedding_dim": 4, "text_channels": 5} == dict(model.hparams)
    # It is a model like any other: its hyperparameters rebuild it.
    kind(**model.hparams).load_state_dict(model.state_dict())


def test_without_a_teacher_it_predicts_and_does_not_train(tmp_path: Path) -> None:
    model = MMIN.from_published(write(tmp_path, "student", *NETWORKS[MMIN]), CLASSES)
    assert not model.taught
    assert model(golden_batch()).isfinite().all()
    with pytest.raises(InputError, match="starts from stage 1"):
        model.on_fit_start()


def test_older_names_and_one_of_several_epochs(tmp_path: Path) -> None:
    write(tmp_path, "student", "IFIM", "C", epoch="7", invariant="Shared")
    write(tmp_path, "teacher", epoch="8")
    model = IFMMIN.from_published(tmp_path, CLASSES, epoch="7")
    weight = GOLDEN["student/Shared/netshared.shared_1.weight"]
    assert torch.equal(model.invariance.state_dict()["layers.0.weight"], weight)
    assert refusal(IFMMIN, tmp_path) == f"{tmp_path}: several epochs (7, 8); give one, or leave only one there."
    assert "no epoch 9; there are 7, 8" in refusal(IFMMIN, tmp_path, epoch="9")


FORMS = {"V0200": (4, "sigmoid"), "V0500 to V0503": (1, "leaky_relu"), "V0600 and others": (2, "leaky_relu")}


def write_form(folder: Path, who: str, layers: int, *names: str) -> dict[str, torch.Tensor]:
    """A released checkpoint whose shared encoder has this many layers; their parameters."""
    write(folder, who, *names)
    generator = torch.Generator().manual_seed(layers)
    shapes = {"weight": (4, 4), "bias": (4,)}
    shared = {
        f"netshared.shared_{layer}.{kind}": torch.randn(shape, generator=generator)
        for layer in range(1, layers + 1)
        for kind, shape in shapes.items()
    }
    torch.save(shared, folder / "60_net_Shared.pth")
    return shared


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_the_shared_encoder_loads(form: str, tmp_path: Path) -> None:
    layers, activation = FORMS[form]
    shared = write_form(tmp_path / "stage2", "student", layers, "IFIM", "C")
    write_form(tmp_path / "stage1", "teacher", layers)
    model = IFMMIN.from_published(tmp_path / "stage2", CLASSES, teacher=tmp_path / "stage1").eval()
    assert (model.hparams["invariance_layers"], model.hparams["invariance_activation"]) == (layers, activation)
    x = h = torch.randn(5, 3, 4)
    for layer in range(1, layers + 1):
        x = x @ shared[f"netshared.shared_{layer}.weight"].T + shared[f"netshared.shared_{layer}.bias"]
        if activation == "leaky_relu":
            x = torch.where(x > 0, x, 0.01 * x)
        elif layer < layers:
            x = x.sigmoid()
    close(model.invariance(h), x)
    close(model.teacher_invariance(h), x)  # the same parameters were drawn for stage 1
    assert model(golden_batch()).isfinite().all()
    # Stage 1 from a folder, and training on with the dropout that no weight tells.
    options: dict[str, Any] = {"invariance_layers": layers, "invariance_activation": activation}
    sizes: dict[str, Any] = {"feature_dims": DIMS, "class_names": CLASSES, **ENCODERS}
    again = IFMMIN(pretrained=str(tmp_path / "stage1"), invariance_dropout=0.5, **sizes, **options)
    again.load_pretrained(None)
    close(again.eval().invariance(h), x)


def test_a_form_of_the_shared_encoder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    write_form(tmp_path, "student", 3, "IFIM", "C")
    assert "3 linear layers, but its public forms have 1, 2 or 4" in refusal(IFMMIN, tmp_path)
    write_form(tmp_path / "stage1", "teacher", 1)
    model = IFMMIN(feature_dims=DIMS, class_names=CLASSES, pretrained=str(tmp_path / "stage1"), **ENCODERS)
    with pytest.raises(InputError, match="invariance does not fit this model"):
        model.load_pretrained(None)


def test_what_weights_do_not_tell_is_given(tmp_path: Path) -> None:
    folder = write(tmp_path, "student", *NETWORKS[IFMMIN])
    chained, released = (
        IFMMIN.from_published(folder, CLASSES, cascade_form=form).eval() for form in ("chained", "accumulated")
    )
    assert released.imagination.form == "accumulated"
    h, H = torch.randn(5, 12), torch.randn(5, 12)
    u = h
    for block in chained.imagination.autoencoders():
        u = u + H
        out, _ = block(u)
    close(released.imagination(h, H)[0], chained.imagination.head(u + out))


def test_one_cascade_for_both_directions_is_released_as_one_network(tmp_path: Path) -> None:
    model = MMIN.from_published(write(tmp_path, "student", "AE", "C"), CLASSES)
    assert model.share_cascades
    assert torch.equal(
        model.imagination.state_dict()["blocks.1.encoder.2.weight"], GOLDEN["student/AE/encoder_1.2.weight"]
    )


@pytest.mark.parametrize(
    ("kind", "net"),
    [(kind, net) for kind, nets in NETWORKS.items() for net in ("A", "L", *nets) if net != "AE_cycle"],
)
def test_a_missing_network_is_named(kind: type[PretrainedModule], net: str, tmp_path: Path) -> None:
    write(tmp_path, "student", *NETWORKS[kind])
    (tmp_path / f"60_net_{net}.pth").unlink()
    assert f"no network {net};" in refusal(kind, tmp_path)


def test_the_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    ifmmin = write(tmp_path / "ifmmin", "student", *NETWORKS[IFMMIN])
    mmin = write(tmp_path / "mmin", "student", *NETWORKS[MMIN])
    assert "another model" in refusal(MMIN, ifmmin)
    assert "another model" in refusal(MMINWithoutCycle, mmin)
    assert "no network Shared" in refusal(IFMMIN, mmin)
    assert "no <epoch>_net_<NET>.pth files" in refusal(MMIN, tmp_path)
    assert "classifier does not fit" in refusal(MMIN, mmin, class_names=["only", "two"])


@pytest.mark.parametrize(
    "change",
    [
        {"V": "L"},  # a TextCNN where an LSTM is expected
        {"A": "L"},
        {"AE": "C"},
        {"C": "AE"},
        {"A": {"rnn.weight_ih_l0": torch.zeros(3)}},
        {"AE": {"decoder_0.4.weight": torch.zeros(12, 10), "encoder_0.0.weight": torch.zeros(10, 5)}},
        {"L": {"conv1.weight": torch.zeros(5)}},
        {"C": {}},
        {"C": [torch.zeros(2)]},
        {"C": {"fc_out.weight": 3}},
    ],
    ids=str,
)
def test_a_network_of_another_architecture_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, "student", *NETWORKS[MMIN])
    for net, wrong in change.items():
        state = networks("student", wrong)[wrong] if isinstance(wrong, str) else wrong
        torch.save(state, tmp_path / f"60_net_{net}.pth")
    refusal(MMIN, tmp_path)


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_what_is_no_plain_checkpoint_is_refused_and_never_run(tmp_path: Path) -> None:
    folder, sprung = write(tmp_path / "net", "student", *NETWORKS[MMIN]), tmp_path / "sprung"
    file = folder / "60_net_AE.pth"
    whole = file.read_bytes()
    truncate(file)
    assert refusal(MMIN, folder).startswith(f"{file}: not a readable checkpoint")
    for content in (b"", b"not a checkpoint", whole[:100]):
        file.write_bytes(content)
        assert refusal(MMIN, folder).startswith(f"{file}: not a readable checkpoint")
    for zipped in (True, False):
        torch.save({"transition.0.weight": Trap(sprung)}, file, _use_new_zipfile_serialization=zipped)
        message = refusal(MMIN, folder)
        assert "contains code, which is never run" in message
        assert "weights_only" not in message  # no advice to load it unsafely
        assert not sprung.exists()
    torch.load(file, weights_only=False)
    assert sprung.exists(), "the trap does not work, so nothing was tested"
    with pytest.raises(InputError, match="no such checkpoint file"):
        load_safely(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    ("kind", "stage1", "names", "kept"),
    [(IFMMIN, InvariantPretraining, ("Shared",), "shared"), (MMIN, FusionPretraining, (), "fusion")],
)
def test_stage_1_from_a_folder(
    kind: type[PretrainedModule], stage1: type[Pretraining], names: tuple[str, ...], kept: str, tmp_path: Path
) -> None:
    batch = golden_batch()
    folder = write(tmp_path, "student", *names, C=f"C_{kept}")
    pretrained = stage1(feature_dims=DIMS, class_names=CLASSES, **ENCODERS, hidden_dims=[8, 8]).eval()
    load(pretrained, read_stage1(folder, stage1).parts)
    output = {"shared": "pretrain_invariant", "fusion": "pretrain_fusion"}[kept]
    close(pretrained(batch.unmasked()), GOLDEN[f"out/{output}/logits"])

    write(folder, "teacher", *names)
    parts = read_stage1(folder, stage1).parts
    model = kind(feature_dims=DIMS, class_names=CLASSES, **ENCODERS)
    model.load_stage1(parts, str(folder))
    close(model.teacher.absent_part(batch).flatten(1), in_our_order(GOLDEN["out/target_h_missing_alv"]))
    for mine, theirs in zip(model.encoders.parameters(), model.teacher.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(InputError, match="encoders does not fit this model and corpus") as caught:
        kind(feature_dims=[9, 6, 7], class_names=CLASSES, **ENCODERS).load_stage1(parts, str(folder))
    assert "\n" not in str(caught.value)
    if names:
        (folder / "60_net_Shared.pth").unlink()
        with pytest.raises(InputError, match=f"{folder}: no invariance in it"):
            model.load_stage1(read_stage1(folder, stage1).parts, str(folder))


def test_fit_starts_from_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_default_dtype(torch.float32)
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "corpus", dims=DIMS)
    folder = write(tmp_path / "stage1", "teacher")
    command = ["fit", "--model", "MMIN", "--data", "IEMOCAP", "--data.root", "corpus", "--run_dir", "run"]
    sizes = ["--model.embedding_dim", "4", "--model.text_channels", "5", "--trainer.max_epochs", "1"]
    quiet = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
    assert main([*command, *sizes, *quiet, "--model.pretrained", str(folder)]) == 0
    assert not (tmp_path / "run" / "stage1").exists()
    checkpoint = load_safely(tmp_path / "run" / "checkpoints" / "last.ckpt")
    weight = GOLDEN["teacher/A/rnn.weight_ih_l0"].float()
    assert torch.equal(checkpoint["state_dict"]["teacher.encoders.audio.rnn.weight_ih_l0"], weight)
    capsys.readouterr()
    truncate(folder / "60_net_V.pth")
    command[-1] = "again"
    assert main([*command, *sizes, *quiet, "--model.pretrained", str(folder)]) == 1
    assert f"error: {folder}/60_net_V.pth: not a readable checkpoint" in capsys.readouterr().err
