"""Configurations that are wrong, and loggers that cannot log: one line each, in no time, nothing written."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies
from jsonargparse import Namespace

from datamodules.errors import InputError
from ifmmin.cli import configurations
from ifmmin.cli.arguments import Parser
from ifmmin.cli.loggers import check_loggers
from tests.faults.cases import Case, one_line, table


def text(content: str | bytes) -> Callable[[Path], None]:
    """Makes a configuration of this text."""

    def make(folder: Path) -> None:
        (folder / "c.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
DOUBLED = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} {{l: *a{i - 1}, r: *a{i - 1}}}\n" for i in range(1, 40))
NOT_ALLOWED = "is not allowed; write plain values."


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "c.yaml")


def dead_link(folder: Path) -> None:
    (folder / "c.yaml").symlink_to("nowhere")


def with_a_bomb_inside(folder: Path) -> None:
    (folder / "inner.yaml").write_text(LAUGHS)
    (folder / "c.yaml").write_text("model: inner.yaml\n")


def with_a_pipe_inside(folder: Path) -> None:
    os.mkfifo(folder / "inner")
    (folder / "c.yaml").write_text("model: MeanFusion\ntrainer: {callbacks: inner}\n")


def with_one_that_is_not_there(folder: Path) -> None:
    (folder / "c.yaml").write_text("model: inner.yaml\n")


FILES = [
    Case("no file", lambda folder: None, "c.yaml: there is no such configuration file."),
    Case("a dead link", dead_link, "c.yaml: there is no such configuration file."),
    Case("a folder", lambda folder: (folder / "c.yaml").mkdir(), "c.yaml: a folder; name the configuration file"),
    Case("a pipe", fifo, "c.yaml: a pipe or a device, not a file"),
    Case("empty", text(""), "c.yaml: empty, not options by name"),
    Case("a comment", text("# nothing\n"), "c.yaml: empty, not options by name"),
    Case("a megabyte", text("# x\n" * 300_000), "c.yaml: has 1,200,000 bytes; a configuration has at most 1,000,000."),
    Case("Latin-1", text("run_dir: Köln".encode("latin-1")), "c.yaml: not UTF-8 (byte 10); save it as UTF-8."),
    Case("UTF-16", text("model: IFMMIN".encode("utf-16")), "c.yaml: not UTF-8 (byte 0)"),
    Case("bytes", text(bytes(range(256))), "c.yaml: not UTF-8"),
    Case("NUL", text("model: \0"), "c.yaml: not YAML (unacceptable character"),
    Case("NUL, escaped", text('model: MeanFusion\nrun_dir: "a\\0b"'), r"c.yaml: a\x00b holds a control character"),
    Case("an escape sequence", text('model: "\\e[2J"'), r"c.yaml: \x1b[2J holds a control character"),
    # Growth.
    Case("billion laughs", text(LAUGHS), "c.yaml: line 6: grows to more than 100,000 values"),
    Case("doubled forty times", text(DOUBLED), "grows to more than 100,000 values"),
    Case("laughs in a file it names", with_a_bomb_inside, "inner.yaml: line 6: grows to more than 100,000 values"),
    Case("an alias of itself", text("a: &a [*a]"), "line 1: *a stands for nothing above, or holds itself."),
    Case("an alias of nothing", text("a: *b"), "line 1: *b stands for nothing above"),
    Case("5000 lists", text("trainer: " + "[" * 5000 + "]" * 5000), "line 1: nested more than 40 deep"),
    Case("300 mappings", text("".join(" " * i + "a:\n" for i in range(300))), "line 41: nested more than 40 deep"),
    Case("a pipe that it names", with_a_pipe_inside, "not a file"),
    Case("a file that is not there", with_one_that_is_not_there, "inner.yaml: there is no such configuration file."),
    # Types.
    Case("a call", text("model: !!python/object/apply:os.system [id]"), f"os.system {NOT_ALLOWED}"),
    Case("a name of Python", text("a: !!python/name:os.system"), f"os.system {NOT_ALLOWED}"),
    Case("a module", text("- !!python/module:os"), NOT_ALLOWED),
    Case("a tag of one's own", text("model: !mine x"), f"!mine {NOT_ALLOWED}"),
    Case("bytes by tag", text("model: !!binary aGVsbG8="), NOT_ALLOWED),
    Case("a set", text("model: !!set {a, b}"), NOT_ALLOWED),
    # Form.
    Case("a list", text("[1, 2]"), "c.yaml: holds a list, not options by name"),
    Case("a number", text("5"), "c.yaml: holds 5, not options by name"),
    Case("text", text("model"), "c.yaml: holds 'model', not options by name"),
    Case("broken", text("a: [1\nb: 2"), "c.yaml: line 2: not YAML (did not find expected ',' or ']')."),
    Case("a tab", text("trainer:\n\tmax_epochs: 1"), "c.yaml: line 2: not YAML"),
    Case("two documents", text("a: 1\n---\nb: 2"), "c.yaml: line 2: not YAML"),
    Case("a number as name", text("1: 2"), "c.yaml: 1 is no name of an option."),
    Case("a list as trainer", text("model: MeanFusion\ntrainer: [1]"), "trainer holds a list; it takes options"),
    Case("text as trainer", text("trainer: fast"), "trainer holds 'fast'; it takes options by name."),
    Case("a number as model", text("model: 3"), "model holds 3; it takes a class name, or class_path"),
    Case("a list as data", text("model: MeanFusion\ndata: [IEMOCAP]"), "data holds a list; it takes a class name"),
    Case("a list as init_args", text("model: {class_path: MeanFusion, init_args: [1]}"), "init_args holds a list"),
    Case("a list as run_dir", text("model: MeanFusion\nrun_dir: [1]"), "--run_dir: Expected a str. Got value: [1]"),
    # Names.
    Case(
        "an unknown option", text("model: MeanFusion\ntrainr: {}"), "option trainr is not known. Did you mean trainer?"
    ),
    Case("an option like no other", text("model: MeanFusion\nxyzzy: 1"), "c.yaml: the option xyzzy is not known."),
    Case(
        "of the trainer",
        text("trainer: {max_epoch: 1}"),
        "trainer.max_epoch is not known. Did you mean trainer.max_epochs?",
    ),
    Case("of the model", text("model: {class_path: MeanFusion, init_args: {dimm: 1}}"), "--model.dimm is not known."),
    Case("beside init_args", text("model: {class_path: MeanFusion, init_arg: {}}"), "Did you mean model.init_args?"),
    Case("an unknown model", text("model: IFMIN"), "c.yaml: model 'IFMIN' is not known. Did you mean IFMMIN?"),
    Case("an unknown class", text("model: {class_path: IFMIN}"), "Did you mean IFMMIN?"),
    Case("a function as model", text("model: {class_path: os.system}"), "not a subclass of MissingModalityModule."),
    Case(
        "an unknown corpus",
        text("model: MeanFusion\ndata: Iemocap"),
        "corpus 'Iemocap' is not known. Did you mean IEMOCAP?",
    ),
    Case("no model", text("seed_everything: 1"), "--model is needed."),
    Case("a seed below 0", text("model: MeanFusion\nseed_everything: -1"), "--seed_everything -1: give a whole number"),
    Case("text as seed", text("model: MeanFusion\nseed_everything: x"), "--seed_everything: give a whole number"),
    Case("a user of no home", text("model: MeanFusion\nrun_dir: ~nobody_of_this_name/x"), "no such user's home"),
    Case(
        "an unknown callback",
        text("model: MeanFusion\ntrainer: {callbacks: EarlyStoping}"),
        "--trainer.callbacks: there is no class EarlyStoping. Did you mean EarlyStopping?",
    ),
    Case(
        "a logger without its library",
        text("model: MeanFusion\ntrainer: {logger: {class_path: MLFlowLogger}}"),
        "--trainer.logger MLFlowLogger: needs the package mlflow; pip install mlflow.",
    ),
    Case(
        "a logger without its library, by its path",
        text("model: MeanFusion\ntrainer: {logger: {class_path: lightning.pytorch.loggers.NeptuneLogger}}"),
        "NeptuneLogger: needs the package neptune; pip install neptune.",
    ),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", table(FILES))
def test_a_configuration_is_refused(case: Case, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case.make(here)
    before, start = {*here.rglob("*")}, time.process_time()
    assert case.expected in one_line(capsys, ["fit", "--config", "c.yaml"])
    assert time.process_time() - start < 20
    assert {*here.rglob("*")} == before


def test_the_settings_of_one_class_are_checked_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "m.yaml").write_text(LAUGHS)
    os.mkfifo(here / "pipe.yaml")
    for words, expected in [
        (["--model", "m.yaml"], "m.yaml: line 6: grows"),
        (["--model", "MeanFusion", "--trainer=m.yaml"], "m.yaml: line 6: grows"),
        (["--model", "pipe.yaml"], "pipe.yaml: a pipe or a device"),
        (["--model", "MeanFusion", "--trainer.callbacks", "pipe.yaml"], "pipe.yaml: a pipe or a device"),
        (["--model", "MeanFusion", "--data", "none.yaml"], "none.yaml: there is no such configuration file."),
        (["--model", "MeanFusion", "--trainer.plugins", "{a: !!python/name:os.system }"], NOT_ALLOWED),
        (["--config", "{a: &a [*a]}"], "holds itself"),
    ]:
        assert expected in one_line(capsys, ["fit", *words])


def parsed(command: str, content: str) -> Namespace:
    """What the options of a small command make of a configuration."""
    Path("c.yaml").write_text(content, encoding="utf-8")
    top, inner = Parser(), Parser()
    inner.add_argument("-c", "--config", action="config")
    inner.add_argument("--seed_everything", type=int, default=0)
    if command == "test":
        inner.add_argument("--ckpt_path", type=str)
    top.add_subcommands().add_subcommand(command, inner)
    found: Namespace = top.parse_args([command, "--config", "c.yaml"])[command]
    return found


def test_a_configuration_of_fit_is_taken_by_other_commands(here: Path) -> None:
    of_fit = "seed_everything: 3\nresume: null\ntest: true\nweights_only: null\n"
    assert parsed("test", of_fit).seed_everything == 3
    assert parsed("test", json.dumps({"seed_everything": 3, "output": "x"})).seed_everything == 3
    with pytest.raises(InputError, match="the option tset is not known"):
        parsed("test", "tset: true")


plain = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text("abc é"),
    lambda inner: (
        strategies.lists(inner, max_size=4) | strategies.dictionaries(strategies.text("ab"), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(plain)
def test_plain_values_are_read_as_they_are(value: object) -> None:
    assert configurations.parse(json.dumps(value), "x") == value


@given(strategies.text("ab&*[]{}:,-!|>\n '\"#?%@", max_size=60))
def test_any_text_is_read_or_refused(value: str) -> None:
    try:
        configurations.parse(value, "x")
    except InputError as error:
        assert str(error).startswith("x:")


# Loggers.

LOGGERS = [
    ("CometLogger", {}, "needs the package comet_ml; pip install comet-ml."),
    ("MLFlowLogger", {}, "needs the package mlflow; pip install mlflow."),
    ("NeptuneLogger", {}, "needs the package neptune; pip install neptune."),
    ("WandbLogger", {"project": "a/b"}, "W&B takes no / in the name of a project."),
    ("WandbLogger", {"project": "../../x"}, "W&B takes no / in the name of a project."),
    ("WandbLogger", {"project": "a#b"}, "W&B takes no # in the name of a project."),
    ("WandbLogger", {"project": "50%"}, "W&B takes no % in the name of a project."),
    ("WandbLogger", {"project": ""}, "W&B takes 1 to 128 printable letters."),
    ("WandbLogger", {"project": "  "}, "W&B takes 1 to 128 printable letters."),
    ("WandbLogger", {"project": "x" * 300}, "W&B takes 1 to 128 printable letters."),
    ("WandbLogger", {"project": "a\nb"}, "W&B takes 1 to 128 printable letters."),
    ("WandbLogger", {"project": "ok"}, "no API key; run wandb login, set WANDB_API_KEY"),
]


@pytest.mark.parametrize(("name", "settings", "expected"), LOGGERS, ids=lambda value: repr(value)[:30])
def test_a_logger_that_cannot_log(
    name: str, settings: dict[str, str], expected: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", str(here / "netrc"))
    logger = Namespace(class_path=f"lightning.pytorch.loggers.{name}", init_args=Namespace(**settings))
    with pytest.raises(InputError) as error:
        check_loggers([True, logger])
    assert expected in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("configured", [None, True, False, [], [False]])
def test_no_logger_is_no_fault(configured: object) -> None:
    check_loggers(configured)


def test_loggers_that_can_log() -> None:
    offline = Namespace(project="a b-c_d.é", offline=True)
    check_loggers(Namespace(class_path="lightning.pytorch.loggers.WandbLogger", init_args=offline))
    check_loggers(Namespace(class_path="lightning.pytorch.loggers.CSVLogger", init_args=None))
