from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from benchmarks.search.space import GENERAL, SPACES, Parameter, Space, options_of, read_space, shipped_space
from datamodules.errors import InputError
from datamodules.privileged import Privileged
from datamodules.synthetic import Synthetic
from ifmmin.discovery import find_model, model_names
from ifmmin.model import IFMMIN
from ifmmin.pretraining.stage1 import Stage1Module


def read(tmp_path: Path, text: str, fixed: tuple[str, ...] = (), name: str = "space.yaml") -> Space:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_space(path, IFMMIN, Synthetic, fixed)


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-3 as text, for want of a dot."""
    space = read(
        tmp_path,
        "model.lambda_inv: {low: 1e-3, high: 10, log: true}\n"
        "model.dropout: {low: 0.1, high: 0.9, step: 0.1}\n"
        "model.blocks: {low: 2, high: 8}\n"
        "model.cascade_form: {choices: [chained, summed]}\n"
        "model.hidden_dims: {choices: [[64], [128, 128]]}\n"
        "model.cascaded_input: {choices: [true, false]}\n"
        "model.pretraining.learning_rate: {choices: [1e-4, 1E-3]}\n"
        "data.train_mask: {choices: [uniform, '0.3']}\n",
    )
    weight, dropout, blocks, form, dims, flag, rate, mask = space.parameters
    assert (weight.low, weight.high, weight.log, weight.whole) == (0.001, 10.0, True, False)
    assert (dropout.low, dropout.high, dropout.step) == (0.1, 0.9, 0.1)
    assert (blocks.low, blocks.high, blocks.whole) == (2, 8, True)
    assert form.labels == ["chained", "summed"] and dims.labels == ["[64]", "[128, 128]"]
    assert flag.labels == [True, False] and rate.choices == (1e-4, 1e-3) and mask.choices == ("uniform", "0.3")


def test_what_is_suggested_is_within_and_of_the_option_s_type(tmp_path: Path) -> None:
    space = read(
        tmp_path,
        "model.lambda_inv: {low: 1e-3, high: 10, log: true}\n"
        "model.dropout: {low: 0.1, high: 0.9, step: 0.2}\n"
        "model.blocks: {low: 2, high: 8, step: 3}\n"
        "model.hidden_dims: {choices: [[64], [128, 128]]}\n",
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = []
    for _ in range(60):
        trial = study.ask()
        drawn.append({parameter.name: parameter.suggest(trial) for parameter in space.parameters})
    assert all(0.001 <= each["model.lambda_inv"] <= 10 for each in drawn)
    assert sum(each["model.lambda_inv"] < 0.1 for each in drawn) > 15  # half of a logarithmic scale
    assert {round(each["model.dropout"], 6) for each in drawn} == {0.1, 0.3, 0.5, 0.7, 0.9}
    assert {each["model.blocks"] for each in drawn} == {2, 5, 8}
    assert all(isinstance(each["model.blocks"], int) for each in drawn)
    assert {each["model.hidden_dims"] for each in drawn} == {"[64]", "[128, 128]"}


def test_words_give_back_every_digit() -> None:
    given = options_of({"model.a": 0.1 + 0.2, "model.b": -1.5e-7, "model.c": True, "model.d": 3, "model.e": "x"})
    words = {option[0]: option[1] for option in given}
    assert float(words["--model.a"]) == 0.1 + 0.2
    assert float(words["--model.b"]) == -1.5e-7 and "e" not in words["--model.b"]
    assert (words["--model.c"], words["--model.d"], words["--model.e"]) == ("true", "3", "x")


@pytest.mark.parametrize("name", sorted(model_names()))
def test_every_model_has_a_space_that_it_takes(name: str) -> None:
    model = find_model(name)
    if issubclass(model, Stage1Module):
        pytest.skip("a stage 1 is not searched")
    space = read_space(shipped_space(name), model, Privileged)
    assert "model.learning_rate" in [parameter.name for parameter in space.parameters]


def test_shipped_spaces_are_named_after_models() -> None:
    names = {path.stem for path in SPACES.glob("*.yaml")}
    assert names - {GENERAL.stem} <= set(model_names()) and GENERAL.stem in names


def test_of_the_general_space_a_fixed_option_is_left_out() -> None:
    names = [each.name for each in read_space(GENERAL, IFMMIN, Synthetic, ["--model.dropout"]).parameters]
    assert "model.learning_rate" in names and "model.dropout" not in names


REFUSED: list[tuple[str, str, str]] = [
    ("empty", "", "empty, not options by name"),
    ("no options", "{}", "names no option to search"),
    ("a list", "- model.dropout", "holds a list, not options by name"),
    ("not YAML", "model.dropout: {low: 0.1", "not YAML"),
    ("a type", "model.dropout: !!python/object:os.system {}", "is not allowed"),
    (
        "unknown",
        "model.droput: {low: 0.1, high: 0.5}",
        "model.droput is no option of IFMMIN. Did you mean model.dropout?",
    ),
    ("without its group", "dropout: {low: 0.1, high: 0.5}", "Did you mean model.dropout?"),
    ("dashes", "--model.dropout: {low: 0.1, high: 0.5}", "write model.dropout, without dashes"),
    ("nested", "model: {dropout: {low: 0.1, high: 0.5}}", "model: name each option in full"),
    (
        "stage 1's",
        "model.pretraining.learnin_rate: {low: 1e-5, high: 1e-3}",
        "Did you mean model.pretraining.learning_rate?",
    ),
    ("follows the data", "model.class_names: {choices: [a, b]}", "model.class_names is no option of IFMMIN"),
    ("the fold", "data.fold: {choices: [1, 2]}", "data.fold cannot be searched. Of the data there are: batch_size"),
    ("the trainer", "trainer.max_epochs: {low: 1, high: 9}", "give --trainer.max_epochs on the command line"),
    ("a plain value", "model.dropout: 0.5", "model.dropout is 0.5; write {low: 1e-4"),
    ("nothing", "model.dropout:", "model.dropout is nothing; write"),
    ("a wrong key", "model.dropout: {low: 0.1, hihg: 0.5}", "hihg is not known. Did you mean high?"),
    ("no high", "model.dropout: {low: 0.1}", "high is missing"),
    ("low above high", "model.dropout: {low: 0.5, high: 0.1}", "low 0.5 is not below high 0.1"),
    ("low is high", "model.dropout: {low: 0.5, high: 0.5}", "is not below"),
    ("log of zero", "model.lambda_inv: {low: 0, high: 1, log: true}", "on a logarithmic scale it must be above 0"),
    ("log and step", "model.lambda_inv: {low: 1, high: 9, log: true, step: 1}", "has log and step"),
    ("log in words", "model.lambda_inv: {low: 1, high: 9, log: maybe}", "log is maybe; it must be true or false"),
    ("a step beyond", "model.dropout: {low: 0.1, high: 0.25, step: 0.1}", "no steps of 0.1 lead from 0.1 to 0.25"),
    ("a step of 0", "model.dropout: {low: 0.1, high: 0.5, step: 0}", "no steps of 0 lead"),
    ("a step back", "model.dropout: {low: 0.1, high: 0.5, step: -0.1}", "no steps of -0.1 lead"),
    ("no number", "model.dropout: {low: little, high: 0.5}", "low is little; it must be a number"),
    ("infinite", "model.lambda_inv: {low: 1, high: .inf}", "high is inf; it must be a number"),
    ("not a number", "model.lambda_inv: {low: .nan, high: 1}", "low is nan; it must be a number"),
    ("a truth value", "model.lambda_inv: {low: false, high: true}", "low is False; it must be a number"),
    ("out of range", "model.dropout: {low: 0.1, high: 1.0}", "model.dropout 1.0: it must be at least 0 and below 1"),
    ("negative", "model.lambda_inv: {low: -1, high: 1}", "model.lambda_inv -1.0: it must be at least 0"),
    ("a fraction of blocks", "model.blocks: {low: 1.5, high: 3}", "low is 1.5; the option takes whole numbers"),
    ("a range of words", "model.cascade_form: {low: 1, high: 2}", "takes no numbers, so it has no range"),
    ("a range of truth", "model.cascaded_input: {low: 0, high: 1}", "takes no numbers, so it has no range"),
    ("one choice", "model.dropout: {choices: [0.5]}", "at least two values"),
    ("choices in words", "model.dropout: {choices: all}", "at least two values"),
    ("a choice twice", "model.dropout: {choices: [0.5, 0.5]}", "hold one value twice"),
    ("nothing as choice", "model.dropout: {choices: [0.5, null]}", "hold nothing (null)"),
    ("choices and low", "model.dropout: {choices: [0.5, 0.6], low: 0.1}", "has choices and low"),
    ("an unknown choice", "model.cascade_form: {choices: [chained, wild]}", "model.cascade_form 'wild': choose one of"),
    ("a choice of a type", "model.blocks: {choices: [2, many]}", "model.blocks 'many': it must be"),
    (
        "a choice out of range",
        "model.hidden_dims: {choices: [[64], [0]]}",
        "model.hidden_dims [0]: it must be at least 1",
    ),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_space_that_cannot_be_searched_is_one_line(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read(tmp_path, text)
    line = str(refused.value)
    assert expected in line and "space.yaml" in line and line.isprintable() and len(line) < 600


def test_an_option_that_is_fixed_and_searched_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model.dropout is searched, and --model.dropout fixes it"):
        read(tmp_path, "model.dropout: {low: 0.1, high: 0.5}", ("--model.dropout",))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such configuration file"):
        read_space(tmp_path / "space.yaml", IFMMIN, Synthetic)


def test_ends_are_the_least_and_the_greatest() -> None:
    both: list[dict[str, Any]] = list(
        Space(Path("x"), (Parameter("model.a", 1.0, 2.0), Parameter("model.b", choices=("p", "q", "r")))).ends()
    )
    assert both == [{"model.a": 1.0, "model.b": "p"}, {"model.a": 2.0, "model.b": "r"}]
