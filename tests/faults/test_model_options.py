"""Options of models out of range: one line, before a network is made or a file is written."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.errors import InputError
from datamodules.ranges import Range, declared_options
from ifmmin.base import MissingModalityModule
from ifmmin.optimization import Recipe, clip_gradients
from ifmmin.tasks import task_of
from tests.batches import CLASSES, DIMS
from tests.cli.running import SMALL
from tests.faults.cases import one_line
from tests.ifmmin.models import MODELS

Options = dict[str, Any]

NUMBERS: list[tuple[str, Options, str]] = [
    # Of every model.
    ("MeanFusion", {"learning_rate": 0.0}, "learning_rate 0.0: it must be above 0."),
    ("MeanFusion", {"learning_rate": -1e-3}, "learning_rate -0.001: it must be above 0."),
    ("MeanFusion", {"learning_rate": float("nan")}, "learning_rate nan: it must be above 0."),
    ("MeanFusion", {"learning_rate": float("inf")}, "learning_rate inf: it must be above 0."),
    ("MeanFusion", {"learning_rate": "fast"}, "learning_rate 'fast': it must be above 0."),
    ("MeanFusion", {"beta1": 1.0}, "beta1 1.0: it must be at least 0 and below 1."),
    ("MeanFusion", {"beta1": -0.1}, "beta1 -0.1: it must be at least 0 and below 1."),
    ("MeanFusion", {"weight_decay": -1.0}, "weight_decay -1.0: it must be at least 0."),
    ("MeanFusion", {"batch_size": 0}, "batch_size 0: it must be at least 1."),
    ("MeanFusion", {"batch_size": 2.5}, "batch_size 2.5: it must be a whole number."),
    ("MeanFusion", {"batch_size": True}, "batch_size True: it must be at least 1."),
    ("MeanFusion", {"constant_epochs": -1}, "constant_epochs -1: it must be at least 0."),
    ("MeanFusion", {"decay_epochs": -1}, "decay_epochs -1: it must be at least 0."),
    ("MeanFusion", {"warmup_epochs": -1}, "warmup_epochs -1: it must be at least 0."),
    ("MeanFusion", {"constant_epochs": 0, "decay_epochs": 0}, "epochs 0: "),
    ("MeanFusion", {"clip_norm": 0.0}, "clip_norm 0.0: it must be above 0."),
    ("MeanFusion", {"clip_norm": -1.0}, "clip_norm -1.0: it must be above 0."),
    ("MeanFusion", {"optimizer": "SGD"}, "optimizer 'SGD': choose one of Adam, AdamW."),
    ("MeanFusion", {"decay": "steps"}, "decay 'steps': choose one of linear, cosine, plateau."),
    ("MeanFusion", {"monitor": "loss"}, "monitor loss: the scores of a classification are WA, UA, F1."),
    ("MeanFusion", {"width": 0}, "width 0: it must be at least 1 and at most 10000."),
    ("MeanFusion", {"width": 10**9}, "width 1000000000: it must be at least 1 and at most 10000."),
    ("MeanFusion", {"width": 10**400}, "width 1000"),
    # What follows the data, as a corpus or a checkpoint may give it.
    ("MeanFusion", {"feature_dims": [5, 0, 7]}, "feature_dims [5, 0, 7]: it must be at least 1."),
    ("MeanFusion", {"feature_dims": [5, 7]}, "feature_dims [5, 7]: give the widths of audio, visual, text."),
    ("MeanFusion", {"feature_dims": 5}, "feature_dims 5: it must be a list."),
    ("MeanFusion", {"class_names": ["one"]}, "class names ['one']: a classification needs at least two."),
    ("MeanFusion", {"class_names": ["a", "b", "a"]}, "class names a, b, a: two are the same."),
    ("MeanFusion", {"class_names": [1, 2]}, "class_names [1, 2]: it must be text."),
    ("MeanFusion", {"task": {"name": "ranking"}}, "task 'ranking' is not known."),
    ("MeanFusion", {"task": ["classification"]}, "task ['classification']: it must be a mapping"),
    ("MeanFusion", {"task": {"name": "regression"}}, "its scale None..None is not given by two numbers."),
    ("MeanFusion", {"task": {"name": "regression", "low": 3, "high": 3}}, "the first must be below the second"),
    ("MeanFusion", {"task": {"name": "regression", "low": 0, "high": 1e9}}, "the first must be below the second"),
    ("CMARR", {"task": {"name": "regression", "low": 0, "high": 1}}, "does classification, not regression"),
    # Of encoders, classifiers and cascades.
    ("IFMMIN", {"embedding_dim": 0}, "embedding_dim 0: it must be at least 1"),
    ("IFMMIN", {"embedding_dim": -1}, "embedding_dim -1: it must be at least 1"),
    ("IFMMIN", {"pooling": "mean"}, "pooling 'mean': choose one of max, last, attention."),
    ("IFMMIN", {"text_channels": 0}, "text_channels 0: it must be at least 1"),
    ("IFMMIN", {"text_dropout": 2.0}, "text_dropout 2.0: it must be at least 0 and below 1."),
    ("IFMMIN", {"absent_frames": [0, 1, 1]}, "absent_frames [0, 1, 1]: it must be at least 1"),
    ("IFMMIN", {"absent_frames": [40, 50]}, "absent_frames [40, 50]: give a number for audio, visual, text each."),
    ("IFMMIN", {"absent_frames": []}, "absent_frames []: give a number for audio, visual, text each."),
    ("IFMMIN", {"hidden_dims": [128, 0]}, "hidden_dims [128, 0]: it must be at least 1"),
    ("IFMMIN", {"hidden_dims": 128}, "hidden_dims 128: it must be a list."),
    ("IFMMIN", {"dropout": 1.0}, "dropout 1.0: it must be at least 0 and below 1."),
    ("IFMMIN", {"invariance_dropout": -0.5}, "invariance_dropout -0.5: it must be at least 0"),
    ("IFMMIN", {"invariance_layers": 0}, "invariance_layers 0: it must be at least 1 and at most 1000."),
    ("IFMMIN", {"invariance_layers": 1.5}, "invariance_layers 1.5: it must be a whole number."),
    ("IFMMIN", {"invariance_activation": "relu"}, "invariance_activation 'relu': choose one of leaky_relu, sigmoid."),
    ("IFMMIN", {"cascade_form": "released"}, "cascade_form 'released': choose one of chained, accumulated, summed."),
    ("IFMMIN", {"cascade_init": "kaiming"}, "cascade_init 'kaiming': choose one of published, scaled."),
    ("IFMMIN", {"blocks": 0}, "blocks 0: it must be at least 1 and at most 1000."),
    ("IFMMIN", {"block_dims": []}, "block_dims []: it must not be empty."),
    ("IFMMIN", {"block_dims": [0]}, "block_dims [0]: it must be at least 1"),
    ("IFMMIN", {"block_dims": ["wide"]}, "block_dims ['wide']: it must be at least 1"),
    ("IFMMIN", {"cascaded_input": "no"}, "cascaded_input 'no': it must be true or false."),
    ("IFMMIN", {"lambda_img": -1.0}, "lambda_img -1.0: it must be at least 0."),
    ("IFMMIN", {"lambda_inv": float("nan")}, "lambda_inv nan: it must be at least 0."),
    ("InvariantPretraining", {"discrepancy": "mmd"}, "choose one of published, bounded, zellinger, none."),
    ("InvariantPretraining", {"discrepancy": 1}, "discrepancy 1: choose one of published, bounded, zellinger, none."),
    ("InvariantPretraining", {"invariance_layers": 0}, "invariance_layers 0: it must be at least 1"),
    ("InvariantPretraining", {"moments": 0}, "moments 0: it must be at least 1"),
    ("MMIN", {"lambda_cycle": float("inf")}, "lambda_cycle inf: it must be at least 0."),
    ("MMIN", {"cascade_init": "zero"}, "MMIN: cascade_init 'zero': choose one of published, scaled."),
    ("MMINWithoutCycle", {"cascade_init": False}, "cascade_init False: choose one of published, scaled."),
    ("MMIN", {"share_cascades": 2}, "share_cascades 2: it must be true or false."),
    ("CMARR", {"heads": 0}, "heads 0: it must be at least 1"),
    ("CMARR", {"heads": 3}, "heads 3: it must divide embedding_dim 128."),
    ("CMARR", {"couplings": 1}, "couplings 1: it must be at least 2"),
    ("CMARR", {"align_temperature": 0.0}, "align_temperature 0.0: it must be above 0."),
    ("CMARR", {"feedforward_dim": 0}, "feedforward_dim 0: it must be at least 1"),
    ("MCTN", {"source": "audio"}, "source 'audio': choose one of any, a, v, t."),
    ("MCTN", {"steps": 0}, "steps 0: it must be at least 1"),
    ("MCTN", {"patience": -1}, "patience -1: it must be at least 0."),
    # Of stage 1, before it is trained.
    ("IFMMIN", {"pretraining": {"embedding_dim": 4}}, "pretraining embedding_dim 4: stage 2 starts from these"),
    ("IFMMIN", {"pretraining": {"invariance_layers": 1}}, "pretraining invariance_layers 1: stage 2 starts from these"),
    ("IFMMIN", {"pretraining": {"discrepancy": "mmd"}}, "discrepancy 'mmd': choose one of published, bounded,"),
    ("MMIN", {"pretraining": {"discrepancy": "bounded"}}, "FusionPretraining has no such option."),
    ("IFMMIN", {"pretraining": {"lerning_rate": 1e-3}}, "Did you mean learning_rate?"),
    ("IFMMIN", {"pretraining": {"feature_dims": [1, 2, 3]}}, "InvariantPretraining has no such option."),
    ("IFMMIN", {"pretraining": {"blocks": 3}}, "InvariantPretraining has no such option."),
    ("IFMMIN", {"pretraining": {"learning_rate": -1.0}}, "InvariantPretraining: learning_rate -1.0: it must be above"),
    ("IFMMIN", {"pretraining": {"moments": "five"}}, "moments 'five': it must be at least 1"),
    ("IFMMIN", {"pretraining": {"constant_epochs": 0, "decay_epochs": 0}}, "pretraining: epochs 0: "),
    ("IFMMIN", {"pretraining": {"monitor": "MAE"}}, "monitor MAE: the scores of a classification are"),
    ("IFMMIN", {"pretraining": ["moments"]}, "pretraining ['moments']: it must be a mapping"),
    ("MMIN", {"pretraining": {"invariance_dropout": 0.1}}, "FusionPretraining has no such option."),
]


def made(name: str, options: Options) -> MissingModalityModule:
    return MODELS[name](**{"feature_dims": list(DIMS), "class_names": CLASSES, **options})


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [pytest.param(*case, id=f"{case[0]} {str(case[1])[:60]}") for case in NUMBERS],
)
def test_a_value_out_of_range_is_refused_in_one_line(name: str, options: Options, expected: str) -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(InputError) as refused:
        made(name, options)
    line = str(refused.value)
    assert expected in line
    assert line.isprintable() and len(line) < 400
    if "pretraining" not in options:
        assert torch.equal(torch.random.get_rng_state(), before)  # no weight was drawn


WORDS = [
    ("IFMMIN", ("--model.embedding_dim", "0"), "IFMMIN: embedding_dim 0: it must be at least 1 and at most 10000."),
    ("IFMMIN", ("--model.pretraining", '{"embedding_dim": 4}'), "pretraining embedding_dim 4: stage 2 starts from"),
    ("IFMMIN", ("--model.pretraining.discrepancy", "mmd"), "discrepancy 'mmd': choose one of published, bounded,"),
    ("IFMMIN", ("--model.pretraining.lerning_rate", "1"), "Did you mean learning_rate?"),
    ("IFMMIN", ("--model.dropout.moments", "1"), "--model.dropout.moments is not known"),
    ("IFMMIN", ("--model.task.name", "regression"), "--model.task: follows the data and cannot be set."),
    ("MeanFusion", ("--model.learning_rate=-1",), "MeanFusion: learning_rate -1.0: it must be above 0."),
    ("MeanFusion", ("--model.clip_norm", "0"), "MeanFusion: clip_norm 0.0: it must be above 0."),
    ("MeanFusion", ("--model.width", "1000000000"), "MeanFusion: width 1000000000: it must be at least 1 and at most"),
]


@pytest.mark.parametrize(("name", "words", "expected"), [pytest.param(*case, id=" ".join(case[1])) for case in WORDS])
def test_the_command_line_refuses_it_before_a_file_is_written(
    name: str,
    words: tuple[str, ...],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in one_line(capsys, ["fit", "--model", name, *SMALL, *words])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def has_range(hint: Any) -> bool:
    return any(isinstance(part, Range) for part in getattr(hint, "__metadata__", ())) or any(
        has_range(part) for part in typing.get_args(hint)
    )


def is_number(hint: Any) -> bool:
    return hint in (int, float) or any(is_number(part) for part in typing.get_args(hint))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_number_has_a_range(name: str) -> None:
    without = [
        option for option, hint in declared_options(MODELS[name]).items() if is_number(hint) and not has_range(hint)
    ]
    assert not without


def test_a_recipe_of_ones_own_is_checked() -> None:
    for recipe, expected in [
        (Recipe(learning_rate=0.0), "learning_rate 0.0"),
        (Recipe(plateau_factor=1.0), "plateau_factor 1.0"),
        (Recipe(rates={"head": -1.0}), "rates: head -1.0"),
    ]:
        with pytest.raises(InputError, match=expected):
            recipe.with_options()


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan")])
def test_gradients_are_not_clipped_to_nothing(norm: float) -> None:
    part = torch.nn.Linear(2, 2)
    part(torch.ones(1, 2)).sum().backward()
    with pytest.raises(InputError, match=r"gradients clipped to .*: it must be above 0"):
        clip_gradients([part], norm)


def test_pretraining_draws_no_number() -> None:
    """A model with options for stage 1 starts from the weights of one without."""
    states = []
    for options in ({}, {"pretraining": {"moments": 3, "monitor": "WA"}}):
        torch.manual_seed(0)
        states.append(made("IFMMIN", options).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_scale_of_whole_numbers_is_a_scale() -> None:
    assert task_of({"name": "regression", "low": 1, "high": 7}).spec() == {"name": "regression", "low": 1, "high": 7}
