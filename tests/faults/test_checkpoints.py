"""Checkpoints that are torn, foreign, hostile or wrong inside: one line, nothing executed, nothing scored."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.errors import InputError
from ifmmin import Predictor
from ifmmin.checkpoints import load_model
from ifmmin.checkpoints.parts import read_stage1
from ifmmin.checkpoints.reading import load_safely
from ifmmin.checkpoints.writing import AtomicCheckpointIO
from ifmmin.pretraining import InvariantPretraining
from tests.cli.running import best, fit, same, sample, weights
from tests.faults.cases import Case, one_line, table

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = ["--model.embedding_dim", "4", "--model.text_channels", "4", "--model.hidden_dims", "[4]"]
    return best(fit(tmp_path_factory.mktemp("fitted") / "run", *sample("IEMOCAP"), *small, model="ModalityDropout"))


def copy(source: Path, target: Path) -> Path:
    return Path(shutil.copy(source, target))


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (os.mkdir, ("exploded",))


def inside(change: Change) -> Callable[[Path], None]:
    """A checkpoint whose content ``change`` has changed; what it returns, if anything, takes the content's place."""

    def make(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        changed = change(content)
        torch.save(content if changed is None else changed, path)

    return make


BUFFER = b"\x80\x02}X\x01\x00\x00\x00acbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x01\x85Rs."


def put(*keys: str, value: Any) -> Callable[[Path], None]:
    """A checkpoint with one entry replaced, or removed where ``value`` is ``...``."""

    def change(content: dict[str, Any]) -> None:
        place: Any = content
        for key in keys[:-1]:
            place = place[key]
        if value is ...:
            del place[keys[-1]]
        else:
            place[keys[-1]] = value(place[keys[-1]]) if callable(value) else value

    return inside(change)


def buffered(path: Path) -> None:
    """In place of the structure, a pickle that makes 4 GB of zeros: ``{"a": bytearray(2**32)}``."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, BUFFER if name.endswith("data.pkl") else content)


def deflate(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def overlap(path: Path) -> None:
    """Twenty names for the same large record: as a central directory may say."""
    content = path.read_bytes()
    with zipfile.ZipFile(path, "a") as archive:
        large = max(archive.infolist(), key=lambda entry: entry.file_size)
        for number in range(20):
            copy = zipfile.ZipInfo(f"{large.filename}{number}")
            copy.file_size = copy.compress_size = len(content)
            copy.CRC = large.CRC
            copy.header_offset = large.header_offset
            archive.filelist.append(copy)
        archive._didModify = True  # type: ignore[attr-defined]


def replace(write: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.unlink()
        write(path)

    return make


def as_tar(path: Path) -> None:
    other = path.with_suffix(".bin")
    other.write_bytes(pickle.dumps(Bomb()))
    with tarfile.open(path, "w") as archive:
        archive.add(other, "pickle")
    other.unlink()


def spoil(name: str, value: float) -> Change:
    def change(content: dict[str, Any]) -> None:
        first = sorted(content["state_dict"])[0]
        content["state_dict"][first].view(-1)[0] = value
        assert name in first

    return change


def without_weights(content: dict[str, Any]) -> None:
    for name in [name for name in content["state_dict"] if name.startswith("classifier")]:
        del content["state_dict"][name]


def wider(content: dict[str, Any]) -> None:
    state = content["state_dict"]
    first = sorted(state)[0]
    state[first] = torch.zeros(3, *state[first].shape)


def nested(content: dict[str, Any]) -> None:
    value: list[Any] = []
    for _ in range(60):
        value = [value]
    content["hyper_parameters"]["hidden_dims"] = value


def laughs(content: dict[str, Any]) -> None:
    value: list[Any] = [1]
    for _ in range(18):
        value = [value] * 10
    content["hyper_parameters"]["hidden_dims"] = value


def cyclic(content: dict[str, Any]) -> None:
    value: list[Any] = []
    content["hyper_parameters"]["hidden_dims"] = value
    value.append(value)


DATA = ("ifmmin", "data")
AUDIO = (*DATA, "statistics", "audio")
NOT_OURS = "not a checkpoint that a fit of this library wrote: "

FILES = [
    Case("missing", Path.unlink, "there is no such checkpoint file"),
    Case("a folder", replace(Path.mkdir), "a folder; name the .ckpt file in it"),
    Case("a FIFO", replace(os.mkfifo), "a pipe or a device"),
    Case("a device", replace(lambda path: path.symlink_to("/dev/zero")), "a pipe or a device"),
    Case("a dead link", replace(lambda path: path.symlink_to("nowhere")), "there is no such checkpoint file"),
    Case("a link to itself", replace(lambda path: path.symlink_to(path.name)), "cannot be read"),
    Case("empty", lambda path: path.write_bytes(b""), "it is empty"),
    Case("torn in the middle", lambda path: os.truncate(path, path.stat().st_size // 2), "truncated, damaged"),
    Case("without its last byte", lambda path: os.truncate(path, path.stat().st_size - 1), "truncated, damaged"),
    Case("zeros", lambda path: path.write_bytes(bytes(path.stat().st_size)), "truncated, damaged"),
    Case("text", lambda path: path.write_text("weights"), "truncated, damaged"),
    Case("a bare pickle with code", lambda path: path.write_bytes(pickle.dumps(Bomb())), "code, which is never run"),
    Case("a torch file with code", inside(lambda content: content | {"x": Bomb()}), "code, which is never run"),
    Case("a file of before PyTorch 1.6", lambda path: torch.save({"state_dict": {}, "x": Bomb()}, path,
         _use_new_zipfile_serialization=False), "code, which is never run"),
    Case("a tar", as_tar, "code, which is never run"),
    Case("a buffer of 4 GB", buffered, "it makes buffers of any size"),
    Case("compressed", deflate, "it is compressed"),
    Case("more data declared than there is", overlap, "declares more data than its"),
    Case("another zip", lambda path: zipfile.ZipFile(path, "w").close(), "truncated, damaged"),
]  # fmt: skip

CONTENTS = [
    Case("a list", inside(lambda content: [content]), NOT_OURS + "the file is a list"),
    Case("a tensor", inside(lambda content: torch.zeros(3)), NOT_OURS + "the file is a Tensor"),
    Case("nothing of ours", put("ifmmin", value=...), NOT_OURS + "ifmmin is missing"),
    Case("ours is a list", put("ifmmin", value=[1]), NOT_OURS + "ifmmin is a list"),
    Case("no model", put("ifmmin", "model", value=...), "ifmmin.model is missing"),
    Case("the model is a number", put("ifmmin", "model", value=3), "ifmmin.model is a number"),
    Case("the model is a command", put("ifmmin", "model", value="os.system('x')"), "no name of a class"),
    Case("the model clears the screen", put("ifmmin", "model", value="\x1b[2J"), r"\x1b[2J, no readable name"),
    Case("the model's name is 1 MB", put("ifmmin", "model", value="x" * 10**6), "no readable name"),
    Case("temperatures are a list", put("ifmmin", "temperatures", value=[1.0]), "ifmmin.temperatures is a list"),
    Case("a temperature of no condition", put("ifmmin", "temperatures", value={"x": 1.0}), "has x, no condition"),
    Case("a temperature of 0", put("ifmmin", "temperatures", value={"a": 0.0}), "temperatures.a is 0.0, not from 0.05"),
    Case("a temperature that is NaN", put("ifmmin", "temperatures", value={"a": float("nan")}), "a is nan, not from"),
    Case("no data", put(*DATA, value=...), "ifmmin.data is missing"),
    Case("data are a string", put(*DATA, value="IEMOCAP"), "ifmmin.data is text"),
    Case("no corpus", put(*DATA, "name", value=...), "ifmmin.data.name is missing"),
    Case("the corpus moves the cursor", put(*DATA, "name", value="\x1b[9;9H"), "no readable name"),
    Case("fold 0", put(*DATA, "fold", value=0), "ifmmin.data.fold is 0"),
    Case("fold is true", put(*DATA, "fold", value=True), "ifmmin.data.fold is True"),
    Case("fold is text", put(*DATA, "fold", value="1"), "ifmmin.data.fold is text"),
    Case("no seed", put(*DATA, "seed", value=...), "ifmmin.data.seed is missing"),
    Case("no fingerprint", put(*DATA, "fingerprint", value=...), "fingerprint is missing"),
    Case("two widths", put(*DATA, "feature_dims", value=[26, 342]), "has 2 values, not 3"),
    Case("a width of 0", put(*DATA, "feature_dims", value=lambda dims: [0, *dims[1:]]), "feature_dims is 0"),
    Case("widths of other data", put(*DATA, "feature_dims", value=[1, 1, 1]), "hyper_parameters.feature_dims is not"),
    Case("a class that is a number", put(*DATA, "class_names", value=[1, 2]), "class_names is a number"),
    Case("a class twice", put(*DATA, "class_names", value=["a", "a"]), "has a class twice"),
    Case("classes of other data", put(*DATA, "class_names", value=["a", "b"]), "hyper_parameters.class_names is not"),
    Case("a feature without a name", put(*DATA, "feature_names", value=["a", "b"]), "has 2 values, not 3"),
    Case("features are a number", put(*DATA, "feature_names", value=5), "ifmmin.data.feature_names is a number"),
    Case("masking is text", put(*DATA, "masking", value="uniform"), "ifmmin.data.masking is text"),
    Case("masking is code", put(*DATA, "masking", value={"train_mask": {1, 2}}), "ifmmin.data.masking.train_mask is"),
    Case("extraction is text", put(*DATA, "extraction", value="hog"), "ifmmin.data.extraction is text"),
    Case("extraction of smell", put(*DATA, "extraction", value={"smell": {}}), "extraction has smell, no modality"),
    Case("extraction is empty", put(*DATA, "extraction", value={"audio": {}}), "no format is given"),
    Case("extraction of tomorrow", put(*DATA, "extraction", value={"audio": {"format": 2}}), "format 2 is not known"),
    Case("extraction without a recipe", put(*DATA, "extraction", value={"audio": {"format": 1, "extractor": "x",
         "options": {}}}), "recipe is missing"),
    Case("an unknown task", put(*DATA, "task", value={"name": "ranking"}), "ifmmin.data.task is no task"),
    Case("a task without limits", put(*DATA, "task", value={"name": "regression"}), "ifmmin.data.task is no task"),
    Case("an unknown normalisation", put(*DATA, "normalization", value=["x", "y", "z"]), "normalization has x"),
    Case("one normalisation", put(*DATA, "normalization", value="train"), "normalization is text, not a list"),
    Case("no statistics", put(*DATA, "statistics", value={}), "audio is missing, but audio is normalised by it"),
    Case("statistics are a list", put(*DATA, "statistics", value=[]), "statistics is a list"),
    Case("statistics of a smell", put(*DATA, "statistics", "smell", value={}), "smell, no modality"),
    Case("no mean", put(*AUDIO, "mean", value=...), "audio is not mean and std"),
    Case("mean is a list", put(*AUDIO, "mean", value=lambda mean: mean.tolist()), "mean is a list, not a tensor"),
    Case("mean is NaN", put(*AUDIO, "mean", value=lambda mean: mean * torch.nan), "audio.mean is NaN or infinite"),
    Case("std is infinite", put(*AUDIO, "std", value=lambda std: std / 0), "audio.std is NaN or infinite"),
    Case("std is 0", put(*AUDIO, "std", value=torch.zeros_like), "audio.std is 0 or negative"),
    Case("std is negative", put(*AUDIO, "std", value=lambda std: -std), "audio.std is 0 or negative"),
    Case("mean of another width", put(*AUDIO, "mean", value=lambda mean: mean[:3]), "[3], not floats [26]"),
    Case("mean is a number", put(*AUDIO, "mean", value=lambda mean: mean.sum()), "[], not floats [26]"),
    Case("std is whole", put(*AUDIO, "std", value=lambda std: std.long() + 1), "int64 [26], not floats"),
    Case("mean of 10^12 values", put(*AUDIO, "mean", value=torch.zeros(1).expand(10**12)), "larger than the file"),
    Case("no settings", put("hyper_parameters", value=...), "hyper_parameters is missing"),
    Case("settings are a list", put("hyper_parameters", value=[1]), "hyper_parameters is a list"),
    Case("a setting is a tensor", put("hyper_parameters", "dropout", value=torch.ones(1)), "no plain value"),
    Case("a setting is NaN", put("hyper_parameters", "dropout", value=torch.nan), "dropout is NaN"),
    Case("settings nested deep", inside(nested), "nested too deep or too large"),
    Case("settings nested wide", inside(laughs), "nested too deep or too large"),
    Case("settings nested in themselves", inside(cyclic), "nested too deep or too large"),
    Case("an unknown setting", put("hyper_parameters", "layers", value=3), "its settings make no ModalityDropout"),
    Case("a setting of a wrong kind", put("hyper_parameters", "embedding_dim", value="x"), "make no ModalityDropout"),
    Case("a negative width", put("hyper_parameters", "embedding_dim", value=-4), "make no ModalityDropout"),
    Case("a width of 10^9", put("hyper_parameters", "embedding_dim", value=10**9), "ModalityDropout"),
    Case("a width of 10^30", put("hyper_parameters", "embedding_dim", value=10**30), "out of range"),
    Case("3,000 layers", put("hyper_parameters", "hidden_dims", value=[1] * 3000), "many more parts"),
    Case("no weights at all", put("state_dict", value={}), "state_dict has no weights"),
    Case("weights are missing", put("state_dict", value=...), "state_dict is missing"),
    Case("some weights are missing", inside(without_weights), "are missing"),
    Case("an unknown weight", put("state_dict", "extra\nline", value=torch.ones(1)), r"extra\nline, no readable name"),
    Case("a weight that is none", put("state_dict", "extra", value=torch.ones(1)), "extra is unknown"),
    Case("a weight of another shape", inside(wider), "not those of the ModalityDropout"),
    Case("a weight is a list", put("state_dict", "extra", value=[1.0]), "weight extra is a list, not a tensor"),
    Case("a sparse weight", put("state_dict", "extra", value=torch.eye(3).to_sparse()), "not a dense tensor"),
    Case("a weight without values", put("state_dict", "extra", value=torch.empty(9, device="meta")), "dense tensor"),
    Case("a weight of 8 bits", put("state_dict", "extra", value=torch.ones(1).to(torch.float8_e4m3fn)), "no model has"),
    Case("a weight is NaN", inside(spoil("classifier", float("nan"))), "is NaN or infinite, so its training diverged"),
    Case("a weight is infinite", inside(spoil("classifier", float("inf"))), "is NaN or infinite"),
]  # fmt: skip


@pytest.mark.parametrize("case", table(FILES + CONTENTS))
def test_loading(case: Case, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = copy(good, tmp_path / "strange.ckpt")
    case.make(path)
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert case.expected in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()
    assert not (tmp_path / "exploded").exists()


def test_a_buffer_in_a_published_file_of_before_pytorch_1_6(tmp_path: Path) -> None:
    path = tmp_path / "10_net_A.pth"
    path.write_bytes(BUFFER)
    with pytest.raises(InputError, match=r"10_net_A\.pth: not a readable checkpoint: it makes buffers of any size"):
        load_safely(path, legacy=True)


COMMANDS = {
    "test": ("test", "--ckpt_path"),
    "validate": ("validate", "--ckpt_path"),
    "predict": ("predict", "--ckpt_path"),
    "fit": ("fit", "--ckpt_path"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "case", table(case for case in FILES + CONTENTS if case.name in ("a FIFO", "a weight is NaN", "a width of 10^9"))
)
def test_commands(
    case: Case,
    command: str,
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = copy(good, tmp_path / "strange.ckpt")
    case.make(path)
    words = [COMMANDS[command][0], "--model", "ModalityDropout", *sample("IEMOCAP"), COMMANDS[command][1], str(path)]
    assert case.expected in one_line(capsys, words)
    assert [found.name for found in tmp_path.iterdir()] == ["strange.ckpt"]


@pytest.mark.parametrize("case", table(case for case in FILES + CONTENTS if case.name in ("torn in the middle",
                         "no settings", "a weight is infinite")))  # fmt: skip
def test_stage_1(case: Case, good: Path, tmp_path: Path) -> None:
    path = copy(good, tmp_path / "strange.ckpt")
    case.make(path)
    with pytest.raises(InputError) as caught:
        read_stage1(path, InvariantPretraining)
    assert case.expected in str(caught.value)


def test_what_only_training_reads_may_be_anything(good: Path, tmp_path: Path) -> None:
    path = copy(good, tmp_path / "odd.ckpt")
    for key in ("loops", "callbacks", "optimizer_states", "pytorch-lightning_version"):
        put(key, value="x")(path)
    odd, _ = load_model(path)
    assert same(dict(odd.state_dict()), weights(good))


def test_a_class_that_is_not_installed(good: Path, tmp_path: Path) -> None:
    from baselines import ModalityDropout

    class Mine(ModalityDropout):
        pass

    path = copy(good, tmp_path / "mine.ckpt")
    put("ifmmin", "model", value="Mine")(path)
    with pytest.raises(InputError, match=r"not among the installed models; .* load\(path, model=Mine\)"):
        Predictor.load(path)
    assert type(Predictor.load(path, model=Mine).model) is Mine
    with pytest.raises(InputError, match="a checkpoint of Mine, not of ModalityDropout"):
        Predictor.load(path, model=ModalityDropout)


NAMES = {"a\0b": "has a NUL character", "a\udcffb": "not UTF-8", "~nobody-here/x": "no such user's home"}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_of_no_file(name: str) -> None:
    with pytest.raises(InputError) as caught:
        Predictor.load(name)
    assert NAMES[name] in str(caught.value)
    assert str(caught.value).isprintable()


# Writing.


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, writer = tmp_path / "checkpoints" / "last.ckpt", AtomicCheckpointIO(tmp_path)
    writer.save_checkpoint({"epoch": 1}, path)

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as caught:
        writer.save_checkpoint({"epoch": 2}, path)
    assert caught.value.filename == str(path)
    assert writer.load_checkpoint(path) == {"epoch": 1}
    assert list(path.parent.iterdir()) == [path]


def test_a_run_whose_folder_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    writer = AtomicCheckpointIO(tmp_path / "run")
    with pytest.raises(InputError, match=r"run: this run's folder was deleted while it ran"):
        writer.save_checkpoint({"epoch": 1}, tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert not (tmp_path / "run").exists()
