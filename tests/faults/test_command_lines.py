"""Command lines that are wrong: one line each, nothing written."""

from __future__ import annotations

import errno
import io
import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from datamodules import CORPORA
from datamodules.errors import InputError
from ifmmin.cli import starting
from ifmmin.cli.arguments import prepare
from ifmmin.cli.completion import completion_script
from ifmmin.cli.failures import first_sentence, reported
from ifmmin.cli.main import main
from ifmmin.cli.words import in_order
from tests.cli.running import CHECKOUT
from tests.faults.cases import judged, one_line, words_table

MODULE = """
from datamodules import EmotionDataModule, IEMOCAP
from baselines import MeanFusion

class Mine(MeanFusion):
    "A model."

class Half(MeanFusion):
    from abc import abstractmethod
    @abstractmethod
    def more(self): ...

class Six(IEMOCAP):
    "A corpus."

number = 6
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with a module of classes and modules that fail, as current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "classes_for_tests.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "exits_for_tests.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    (tmp_path / "fails_for_tests.py").write_text("raise ValueError('two\\nlines \\x1b[2J')\n", encoding="utf-8")
    (tmp_path / "broken_for_tests.py").write_text("def\n", encoding="utf-8")
    yield tmp_path
    for name in ("classes", "exits", "fails", "broken"):
        sys.modules.pop(f"{name}_for_tests", None)


IN_ONE_LINE = [
    # Commands.
    ("", "a command is needed. There are: fit,"),
    ("tset --model IFMMIN", "Did you mean test?"),
    ("fit", "fit: --model is needed. There are: BIMHA, CFNSR, CIFMMIN,"),
    ("validate", "validate: --model is needed."),
    ("predict --data IEMOCAP", "predict: --model is needed."),
    ("check", "check: --data or --model is needed. Corpora: CHSIMS, CMUMOSEI,"),
    ("check --model MeanFusion --data IEMOCAP", "check: give --data or --model, not both."),
    ("export", "required"),
    ("export nowhere.ckpt model.onnx", "nowhere.ckpt: "),
    ("export nowhere.ckpt model.pt", "model.pt: networks are written as .onnx; give a name that ends in it."),
    ("models --foo", "--foo is not known."),
    ("models extra", "unrecognized arguments: extra"),
    ("fit --model IFMMIN extra", "unrecognized arguments: extra"),
    # Names, in any order.
    ("fit --model IFMIN", "model 'IFMIN' is not known. Did you mean IFMMIN?"),
    ("fit --model=ifmmin", "Did you mean IFMMIN?"),
    ("test --model Modalitydropout", "Did you mean ModalityDropout?"),
    ("fit --model.lambda_inv 0 --model IFMIN", "Did you mean IFMMIN?"),
    ("fit --model IFMMIN --data.root X --data IEMOCAPP", "Did you mean IEMOCAP?"),
    ("fit --data.fold 2 --data IEMOCAP --data.root nowhere --model IFMMIN", "nowhere: does not exist"),
    ("fit --data.root=nowhere --data=IEMOCAP --model.batch_size=3 --model=IFMMIN", "nowhere: does not exist"),
    ("check --data.root nowhere --data iemocap", "Did you mean IEMOCAP?"),
    ("fit --model.help Nonsense", "model 'Nonsense' is not known. There are:"),
    ("fit --data.help Nonsense", "corpus 'Nonsense' is not known. There are: CHSIMS, CMUMOSEI,"),
    ("fit --model ''", "model '' is not known."),
    ("fit --model IFMMIN --data ''", "corpus '' is not known."),
    ("check --data=", "corpus '' is not known."),
    ("fit --model MMIN --model IFMMIN", "--model: given more than once; give one."),
    ("fit --model MMIN --model.cycle 1 --model=MMIN", "--model: given more than once"),
    ("test --model IFMMIN --data IEMOCAP --data=MSPIMPROV", "--data: given more than once"),
    ("check --model MMIN --model=IFMMIN", "--model: given more than once"),
    ("check --model MeanFusoin", "model 'MeanFusoin' is not known. Did you mean MeanFusion?"),
    ("check --model", "--model: expected one argument"),
    ("check --model=", "model '' is not known."),
    ("check --model x.yaml", "x.yaml: there is no such configuration file."),
    ("check --model.widht 3 --model MeanFusion", "--model.widht is not known. Did you mean --model.width?"),
    ("check --model MeanFusion --model.width 0", "MeanFusion: width 0: it must be at least 1"),
    ("check --model MeanFusion --model.width x", "--model.width: Expected a int"),
    ("check --model MeanFusion --model.feature_dims [1]", "--model.feature_dims: follows the data and cannot be set."),
    ("check --model MeanFusion --seed_everything -1", "--seed_everything -1: give a whole number"),
    ("check --model MeanFusion --seed 1", "--seed is not known. Did you mean --seed_everything?"),
    ("check --model MeanFusion --json x", "--json x: give a name that ends in .json."),
    ("check --model no_such_module.Model", "model no_such_module.Model: cannot be imported (No module named"),
    ("check --model MeanFusion --run_dir x", "--run_dir is not known."),
    ("check --model EmotionShift --model.around TNF", "around: 'TNF' is not known. Did you mean TFN?"),
    ("fit --resume a --resume=b", "--resume: given more than once"),
    ("fit --model IFMMIN --config", "--config: expected one argument."),
    ("fit --resume", "--resume: give the folder of the run to go on with."),
    ("fit --resume=", "--resume: give the folder of the run to go on with."),
    ("check --data IEMOCAP --data.root x --json x/A/comparE.h5", "x/A/comparE.h5: give a name that ends in .json."),
    ("check --data IEMOCAP --data.root x --json -", "--json -: give a name that ends in .json."),
    ("fit --model MeanFusion --run_dir s3://bucket/run", "s3:/bucket/run: an address, not a folder of this machine"),
    ("fit --model MeanFusion --trainer.default_root_dir gs://b", "an address, not a folder of this machine"),
    # Class paths, the same for all commands.
    ("fit --model no_such_module.Model", "model no_such_module.Model: cannot be imported (No module named"),
    ("test --model classes_for_tests.Nine", "the module classes_for_tests has no Nine. Did you mean Mine?"),
    ("fit --model os.path", "model os.path: not a subclass of MissingModalityModule."),
    ("fit --model ifmmin.base.MissingModalityModule", "an abstract class, without forward, losses;"),
    ("fit --model classes_for_tests.Half", "an abstract class, without more;"),
    ("fit --model classes_for_tests.Six", "not a subclass of MissingModalityModule."),
    ("fit --model classes_for_tests..Mine", "not a class path; write package.module.Class."),
    ("fit --model .Mine", "not a class path; write package.module.Class."),
    ("fit --model 'os.system(1).x'", "not a class path; write package.module.Class."),
    ("predict --model exits_for_tests.Mine", "cannot be imported (it ends the program, with code 3)."),
    ("validate --model fails_for_tests.Mine", r"cannot be imported (two\nlines \x1b[2J)."),
    ("fit --model broken_for_tests.Mine", "cannot be imported (invalid syntax"),
    ("check --data no_such_module.Corpus", "corpus no_such_module.Corpus: cannot be imported (No module named"),
    ("check --data classes_for_tests.Sixs", "the module classes_for_tests has no Sixs. Did you mean Six?"),
    ("check --data classes_for_tests.number", "not a subclass of EmotionDataModule."),
    ("check --data datamodules.EmotionDataModule", "an abstract class"),
    ("fit --model IFMMIN --data exits_for_tests.Six", "cannot be imported (it ends the program, with code 3)."),
    # Options: none by an abbreviation, the nearest name, and the group of a bare one.
    (
        "fit --model IFMMIN --trainer.max_epoch 2",
        "--trainer.max_epoch is not known. Did you mean --trainer.max_epochs?",
    ),
    ("fit --model IFMMIN --trainer.dev 2", "Did you mean --trainer.devices?"),
    ("fit --model IFMMIN --trainer.max-epochs 2", "Did you mean --trainer.max_epochs?"),
    ("fit --model IFMMIN --trainer.nonsense 2", "--trainer.nonsense is not known."),
    ("fit --model IFMMIN --seed_every 2", "Did you mean --seed_everything?"),
    ("fit --model IFMMIN --seed 2", "Did you mean --seed_everything?"),
    ("fit --model IFMMIN --run-dir x", "Did you mean --run_dir?"),
    ("fit --model IFMMIN --fold 2", "Did you mean --data.fold?"),
    ("fit --model IFMMIN --fold=2", "Did you mean --data.fold?"),
    ("fit --model IFMMIN --max_epochs 2", "Did you mean --trainer.max_epochs?"),
    ("fit --model IFMMIN --learning_rate 2", "Did you mean --model.learning_rate?"),
    ("fit --model IFMMIN --lr 2", "Did you mean --model.learning_rate?"),
    ("fit --model IFMMIN --data.fodl 2", "Did you mean --data.fold?"),
    ("fit --model IFMMIN --model.lambda_im 2", "Did you mean --model.lambda_img?"),
    ("fit --model IFMMIN --conf x.yaml", "--conf is not known."),
    ("check --data IEMOCAP --root x", "Did you mean --data.root?"),
    ("check --data IEMOCAP --jsn x", "Did you mean --json?"),
    # Values, with the whole name of the option.
    ("fit --model IFMMIN --model.batch_size x", "--model.batch_size: Expected a int. Got value: x"),
    ("fit --model IFMMIN --data.fold x", "--data.fold: Expected a int. Got value: x"),
    ("fit --model IFMMIN --data.match_ids x", "--data.match_ids: Expected one of 'exact', 'suffix',"),
    ("fit --model IFMMIN --model.pretraining 3", "--model.pretraining: Expected a dict."),
    (
        "fit --model MMIN --model.pretraining.nonsense 3",
        "pretraining 'nonsense': FusionPretraining has no such option.",
    ),
    ("fit --model IFMMIN --model.learning_rate.x 3", "--model.learning_rate.x is not known; --model.learning_rate"),
    ("fit --model IFMMIN --data.x 3", "--data.x is not known."),
    (
        "fit --model IFMMIN --intervals all",
        "--intervals: Expected one of 'utterances', 'speakers', 'none'. Got value: all",
    ),
    (
        "fit --model IFMMIN --trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor val/loss "
        "--trainer.callbacks.patience 1.5",
        "--trainer.callbacks.patience: Expected a int. Got value: 1.5",
    ),
    ("fit --model IFMMIN --trainer.callbacks EarlyStopping", "--trainer.callbacks.monitor is needed"),
    ("fit --model IFMMIN --trainer.callbacks+=Timer --trainer.callbacks.x 2", "--trainer.callbacks.x is not known."),
    (
        "fit --model IFMMIN --trainer.logger=CSVLogger --trainer.logger.version []",
        "--trainer.logger.version: Expected a",
    ),
    ("fit --model IFMMIN --trainer.logger=CSVLogger --trainer.logger.x 3", "--trainer.logger.x is not known."),
    ("fit --model IFMMIN --trainer.logger.x 3", "--trainer.logger.x: no class is named that takes it; give --trainer"),
    ("fit --model IFMMIN --trainer.strategy.x 3", "--trainer.strategy.x: no class is named that takes it;"),
    ("fit --model IFMMIN --trainer.logger [3]", "--trainer.logger: what is given is no class; give its name"),
    ("fit --model IFMMIN --trainer.plugins LSFEnvironment", "LSFEnvironment: cannot be made (Did not find the environ"),
    (
        "fit --model IFMMIN --trainer.callbacks+=Timer --trainer.callbacks.duration soon",
        "Timer: cannot be made (`Timer(duration='soon')` is not a valid duration.",
    ),
    # Words that nothing takes.
    ("fit --model IFMMIN --run_dir a\x00b", r"a\x00b: holds a control character"),
    ("fit --model IFMMIN --run_dir=a\x1b[2Jb", r"a\x1b[2Jb: holds a control character"),
    ("fit --model IFM\x07MIN", r"IFM\x07MIN: holds a control character"),
    ("check --data IEMOCAP --data.root a\x9bb", r"a\x9bb: holds a control character"),
    ("fit --model IFMMIN --run_dir \udcff", "not UTF-8"),
    ("fit --model IFMMIN --run_dir ~nobody_of_this_name/x", "no such user's home"),
    ("test --model IFMMIN --ckpt_path=~nobody_of_this_name", "no such user's home"),
    ("check --data IEMOCAP --data.root ~nobody_of_this_name", "no such user's home"),
    ("fit --model IFMMIN --trainer", "argument --trainer: expected one argument"),
]


def split(words: str) -> list[str]:
    """Words of a line; only quotes that enclose a word are taken away."""
    return [word.strip("'") for word in words.split(" ") if word]


@pytest.mark.parametrize(("words", "expected"), words_table(IN_ONE_LINE))
def test_a_line_says_what_is_wrong(words: str, expected: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {*here.rglob("*.*")}
    assert expected in one_line(capsys, split(words), codes=(1,))
    assert {path for path in here.rglob("*.*") if "__pycache__" not in path.parts} <= before


@pytest.mark.parametrize(
    ("words", "ordered"),
    [
        ("fit --model.x 1 --seed_everything 2 --model A", "fit --model A --model.x 1 --seed_everything 2"),
        ("fit --data.fold=2 --data=B --model A", "fit --data=B --data.fold=2 --model A"),
        ("fit --model.x 1 --config c --model=A", "fit --model=A --model.x 1 --config c"),
        ("fit --config c --model.x 1", "fit --config c --model.x 1"),
        ("fit --model A --model.x 1 --model B", "fit --model A --model.x 1 --model B"),
        ("fit --model.x 1 --model", "fit --model --model.x 1"),
    ],
)
def test_classes_are_named_before_their_options(words: str, ordered: str) -> None:
    assert in_order(words.split()) == ordered.split()


def test_home_is_expanded_in_every_option(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    words = ["test", "--model=MeanFusion", "--ckpt_path=~/a.ckpt", "--data.root", "~/b", "--run_dir", "a~"]
    assert prepare(words)[2:] == [f"--ckpt_path={here}/a.ckpt", "--data.root", f"{here}/b", "--run_dir", "a~"]


def test_structured_values_may_have_several_lines(here: Path) -> None:
    words = ["fit", "--model", "MeanFusion", "--trainer.callbacks", "[\n\t{class_path: X}\n]"]
    assert prepare(words)[3:] == words[3:]


def test_a_class_of_the_current_folder_is_found_by_every_command(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = ["--data", "classes_for_tests.Six", "--data.root", str(CHECKOUT / "tests/data/sample_iemocap")]
    main(["check", *corpus])
    assert "No problems." in capsys.readouterr().out
    words = ["fit", "--model", "classes_for_tests.Mine", *corpus]
    assert "--trainer.max_epoch is" in one_line(capsys, [*words, "--trainer.max_epoch", "1"])
    assert "checkpoint" in one_line(capsys, ["predict", *words[1:], "--ckpt_path", "none.ckpt"])


# What a command raises.


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("x.h5: broken\x1b[2J."), r"x.h5: broken\x1b[2J."),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left on device; see that"),
        (OSError("odd"), "odd; see that"),
        (MemoryError(), "not enough memory; IFMMIN_DEBUG=1"),
        (ValueError("First. Second.\nThird"), "ValueError: First; IFMMIN_DEBUG=1"),
        (TypeError("see:\n  - this one\n"), "TypeError: see: - this one; IFMMIN_DEBUG=1"),
        (KeyError("name"), "KeyError: 'name'; IFMMIN_DEBUG=1"),
        (ZeroDivisionError(), "ZeroDivisionError; IFMMIN_DEBUG=1"),
        (RuntimeError("x" * 10_000), "RuntimeError: xxx"),
        (AssertionError("v2.1.0 needs 3.5 of it"), "AssertionError: v2.1.0 needs 3.5 of it;"),
        (
            InputError(
                "Caught InputError in DataLoader worker process 1.\nOriginal Traceback (most recent call last):\n"
                '  File "x.py", line 3, in f\n    raise InputError("a")\n'
                "datamodules.errors.InputError: a.h5: is torn: see.\n"
            ),
            "a.h5: is torn: see.",
        ),
        (
            RuntimeError("DataLoader worker (pid 4918) is killed by signal: Killed. "),
            "a process that prepares batches was killed, perhaps for want of memory; give fewer --data.workers.",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 1, 2) exited unexpectedly"),
            "batches was killed, perhaps for want of",
        ),
        (UnicodeEncodeError("ascii", "─", 0, 1, "not in range"), "UnicodeEncodeError: 'ascii' codec can't encode"),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum"),
    ],
    ids=lambda value: type(value).__name__ + str(value)[:12] if isinstance(value, Exception) else "",
)
def test_any_error_is_one_line(error: Exception, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise error

    assert reported(command) == 1
    assert expected in judged(capsys.readouterr().err)


def test_where_an_error_was_raised_is_shown_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IFMMIN_DEBUG", "1")

    def command() -> int:
        raise ValueError("here")

    assert reported(command) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "test_command_lines.py" in shown
    assert shown.splitlines()[-1].startswith("error: ValueError: here")


def test_a_reader_that_has_gone_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert reported(command) == 141
    assert capsys.readouterr().err == ""


def test_ctrl_c_is_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reported(command)


def test_letters_that_a_terminal_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    starting.settle()
    print("─ λ", flush=True)
    assert written.getvalue() == b"\\u2500 \\u03bb\n"


def test_first_sentences() -> None:
    assert first_sentence("") == ""
    assert first_sentence("one line") == "one line"
    assert first_sentence("`Trainer(devices=0)` value is wrong. See the docs.") == "`Trainer(devices=0)` value is wrong"
    assert first_sentence("e.g. this, of 3.5 GB") == "e.g. this, of 3.5 GB"


# Help and completion.


def test_help_of_fit_shows_ours_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "--help"])
    assert not exit_.value.code
    shown = capsys.readouterr().out
    ours = ("--seed_everything", "--run_dir", "--ckpt_path", "--resume", "\n  --model ", "\n  --data ", "--trainer.")
    places = [shown.index(option) for option in ours]
    assert places == sorted(places)
    assert "-1: as many as the model's recipe has" in " ".join(shown.split())
    for internal in ("weights_only", "Linked arguments", "feature_dims", "PretrainedModule", "MissingModalityModule,"):
        assert internal not in shown
    assert shown.startswith("usage: ") and "fit [options]" in shown.splitlines()[0]


@pytest.fixture(scope="module")
def script() -> str:
    return completion_script("bash")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["f"], ["fit"]),
        (["fit", "--model", "MMIN"], ["MMIN", "MMINWithoutCycle"]),
        (["check", "--data", ""], sorted(CORPORA)),
        (["check", "--data", "CMU"], ["CMUMOSEI", "CMUMOSI"]),
        (["fit", "--trainer.max_"], ["--trainer.max_epochs", "--trainer.max_steps", "--trainer.max_time"]),
        (["fit", "--model", "IFMMIN", "--model.lambda"], ["--model.lambda_img", "--model.lambda_inv"]),
        (["test", "--data", "IEMOCAP", "--data.fo"], ["--data.fold"]),
        (["fit", "--resu"], ["--resume"]),
        (["test", "--resu"], []),
        (["predict", "--outp"], ["--output"]),
        (["extract", ""], ["IEMOCAP", "MSPIMPROV", "clips"]),
        (["import", ""], ["CMUMOSI", "CMUMOSEI", "CHSIMS", "npy"]),
        (["import", "npy", "table", "out", "--vis"], ["--visual"]),
        (["extract", "IEMOCAP", "raw", "out", "--keep"], ["--keep-parts", "--keep-tags"]),
        (["extract", "clips", "raw", "out", "--recipe", "p"], ["portable", "published"]),
        (["extract", "clips", "raw", "out", "--audio", "hf-s"], ["hf-speech"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_the_shell_completes(words: list[str], expected: list[str], script: str) -> None:
    asked = " ".join(shlex.quote(word) for word in ["ifmmin", *words])
    program = f"{script}\nCOMP_WORDS=({asked})\nCOMP_CWORD={len(words)}\n_ifmmin\necho ${{COMPREPLY[*]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == expected
    assert done.stderr == ""


IN_ZSH = [
    ("f", "fit"),
    ("fit --model IF", "fit --model IFMMIN"),
    ("fit --trainer.max_e", "fit --trainer.max_epochs"),
    ("fit --model IFMMIN --model.lambda_im", "fit --model IFMMIN --model.lambda_img"),
    ("check --data IE", "check --data IEMOCAP"),
    ("test --resu", "test --resu"),
    ("fit --run_dir /etc/passw", "fit --run_dir /etc/passwd"),
]


def until(terminal: int, mark: bytes) -> bytes:
    """What a terminal shows up to and with ``mark``."""
    shown = b""
    while mark not in shown:
        assert select.select([terminal], [], [], 30)[0], shown
        shown += os.read(terminal, 65_536)
    return shown


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh (Debian: apt-get install zsh)")
@pytest.mark.parametrize("prepared", ["", "autoload -U +X compinit; compinit -D; "], ids=["bare", "with compinit"])
def test_zsh_completes(prepared: str, tmp_path: Path) -> None:
    (tmp_path / "script").write_text(completion_script("zsh"), encoding="utf-8")
    ours, theirs = pty.openpty()
    variables = os.environ | {"HOME": str(tmp_path), "TERM": "dumb"}
    shell = subprocess.Popen(["zsh", "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, env=variables)
    try:
        begin = f"{prepared}. {tmp_path}/script; ifmmin() {{ print -r -- \"<$*>\" }}; print rea''dy\n"
        os.write(ours, begin.encode())
        assert b"not found" not in until(ours, b"ready\r\n")
        for typed, expected in IN_ZSH:
            os.write(ours, f"ifmmin {typed}\t\n".encode())
            assert f"<{expected}>".encode() in until(ours, b">\r\n")
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
        os.close(theirs)


def test_completion_of_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert "fish" in one_line(capsys, ["completion", "fish"])
    assert "bashcompinit" in completion_script("zsh")
