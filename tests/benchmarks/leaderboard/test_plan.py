import csv
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from baselines import MeanFusion
from benchmarks.leaderboard import groups
from benchmarks.leaderboard.groups import TIMES, untimed
from benchmarks.leaderboard.identity import code_version, differences, imported_files
from benchmarks.leaderboard.plan import Job, chosen_models, corpus_class, make_jobs, sort_settings
from datamodules import Synthetic
from datamodules.errors import InputError
from ifmmin.discovery import Models, discover_models
from ifmmin.pretraining.stage1 import Stage1Module
from ifmmin.pretraining.stage2 import Stage2Module

MODELS = discover_models()


def jobs(*words: str, models: tuple[str, ...] = ("MMIN", "MMINWithoutCycle", "IFMMIN", "ModalityDropout")) -> list[Job]:
    settings = sort_settings(words, MODELS)
    return make_jobs({name: MODELS[name] for name in models}, settings, {1: "one", 2: "two"}, range(2), threads=1)


def test_every_model_on_every_fold_with_every_seed() -> None:
    assert sorted(job.key for job in jobs()) == sorted(
        (name, fold, seed)
        for name in ("MMIN", "MMINWithoutCycle", "IFMMIN", "ModalityDropout")
        for fold in (1, 2)
        for seed in (0, 1)
    )


def test_stage_1_is_shared_by_those_that_start_from_the_same() -> None:
    mmin, without_cycle, ifmmin, dropout = jobs()[:4]
    assert mmin.stage1 == without_cycle.stage1
    assert mmin.stage1 is not None and mmin.stage1.name == "FusionPretraining"
    assert ifmmin.stage1 is not None and ifmmin.stage1.name == "InvariantPretraining"
    assert dropout.stage1 is None
    assert len({job.stage1 for job in jobs() if job.stage1}) == 2 * 2 * 2


def test_a_setting_of_stage_1_parts_it() -> None:
    mmin, without_cycle = jobs("--MMIN.pretraining.decay_epochs", "3", models=("MMIN", "MMINWithoutCycle"))[:2]
    assert mmin.stage1 != without_cycle.stage1
    assert mmin.stage1 and mmin.stage1.words[-2:] == ("--model.decay_epochs", "3")
    # What is meant for stage 1 alone comes last, and so counts.
    rates = ("--IFMMIN.pretraining.invariance_dropout", "0.3", "--IFMMIN.invariance_dropout", "0.5")
    stage1 = jobs(*rates, models=("IFMMIN",))[0].stage1
    assert stage1 and stage1.words[-4:] == ("--model.invariance_dropout", "0.5", "--model.invariance_dropout", "0.3")
    with pytest.raises(InputError, match="one by one, such as --MODEL"):
        jobs("--IFMMIN.pretraining", '{"discrepancy": "bounded"}', models=("IFMMIN",))
    # The other settings of a model are not stage 1's.
    plain, other = jobs("--MMIN.decay_epochs=3", models=("MMIN", "MMINWithoutCycle"))[:2]
    assert plain.stage1 == other.stage1 and plain.words[-2:] == ("--model.decay_epochs", "3")


def test_the_users_own_stage_1_is_taken() -> None:
    (job, *_) = jobs("--IFMMIN.pretrained", "some.ckpt", models=("IFMMIN",))
    assert job.stage1 is None and "some.ckpt" in job.words


def test_a_job_reaches_another_process_whole() -> None:
    for job in jobs():
        assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_settings_reach_the_runs_they_name() -> None:
    settings = sort_settings(
        ["--data", "IEMOCAP", "--data.root=x", "--trainer.max_epochs", "2", "--MMIN.a", "1"], MODELS
    )
    assert settings.data == (("--data", "IEMOCAP"), ("--data.root", "x"))
    assert settings.trainer == (("--trainer.max_epochs", "2"),)
    assert settings.of("MMIN") == (("--model.a", "1"),) and settings.of("IFMMIN") == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.fold", "2"], "--folds"),
        (["--seed_everything", "2"], "--seeds"),
        (["--trainer.logger", "WandbLogger"], "--wandb"),
        (["--model", "MMIN"], "--models"),
        (["--nonsense", "1"], "not known"),
        (["word"], "belongs to no option"),
    ],
)
def test_what_the_board_sets_or_nobody_knows_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sort_settings(words, MODELS)


def test_the_built_in_corpus_is_the_default() -> None:
    for words in ([], ["--data.utterances_per_speaker", "12"]):
        settings = sort_settings(words, MODELS)
        assert settings.data[0] == ("--data", "Synthetic") and corpus_class(settings).__name__ == "Synthetic"
    with pytest.raises(InputError, match="corpus 'IEMOCUP' is not known"):
        corpus_class(sort_settings(["--data", "IEMOCUP"], MODELS))


def test_all_models_are_those_that_predict() -> None:
    chosen = chosen_models(["all"], MODELS)
    assert "IFMMIN" in chosen and "CompleteFusion" in chosen
    assert not {"InvariantPretraining", "FusionPretraining"} & chosen.keys()
    with pytest.raises(InputError, match="Did you mean MMIN"):
        chosen_models(["MMINN"], MODELS)


def test_a_family_is_what_the_cards_say() -> None:
    predicting = chosen_models(["all"], MODELS)
    for family in {model.card.family for model in predicting.values()}:
        chosen = chosen_models([family], MODELS)
        assert chosen == {name: model for name, model in predicting.items() if model.card.family == family}
    both = chosen_models(["translation", "MMIN", "imagination", "MMIN"], MODELS)
    assert both.keys() == {"MCTN"} | {name for name, model in predicting.items() if model.card.family == "imagination"}
    with pytest.raises(InputError, match="'pretraining' is not known"):  # nothing of it predicts
        chosen_models(["pretraining"], MODELS)


def test_the_systems_that_the_library_grew_from() -> None:
    chosen = chosen_models(["seeds"], MODELS)
    assert chosen.keys() == {"IFMMIN", "MMIN", "MMINWithoutCycle", "MCTN", "MISA", "CMARR"}


def test_fast_models_are_measured_to_be() -> None:
    with TIMES.open(newline="", encoding="utf-8") as file:
        seconds = {row["model"]: float(row["run_cpu"]) for row in csv.DictReader(file)}
    chosen = chosen_models(["fast"], MODELS)
    assert {"MeanFusion", "ModalityDropout", "LinearImputation"} <= chosen.keys()
    for name, model in chosen_models(["all"], MODELS).items():
        stage1 = getattr(model, "stage1", None)
        first = "ModalityDropout" if name == "EmotionShift" else stage1 and stage1.__name__
        whole = seconds.get(name, math.inf) + (seconds.get(first, math.inf) if first else 0)
        assert (name in chosen) == (whole <= seconds["ModalityDropout"]), name
        assert (name in untimed(MODELS)) == (whole == math.inf)


def test_what_was_not_timed_is_not_fast_but_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(MeanFusion):
        pass

    known: Models = {**MODELS, "Mine": Mine}
    assert "Mine" not in chosen_models(["fast"], known) and "Mine" in untimed(known)
    assert "Mine" in chosen_models(["fusion"], known)
    broken = tmp_path / "epochs.csv"
    broken.write_text("model\nMMIN\n", encoding="utf-8")
    monkeypatch.setattr(groups, "TIMES", broken)
    with pytest.raises(InputError, match=r"epochs\.csv: not the measurements"):
        chosen_models(["fast"], known)


def test_a_group_that_is_none_is_one_line() -> None:
    with pytest.raises(InputError, match=r"model or group 'fats' is not known\. Did you mean fast\?") as error:
        chosen_models(["fats"], MODELS)
    assert "\n" not in str(error.value) and "imagination" in str(error.value)


def test_a_family_of_anybody_is_a_word_or_no_group() -> None:
    class Mine(MeanFusion):
        card = replace(MeanFusion.card, family="\x1b[2J")

    class Yours(MeanFusion):
        card = replace(MeanFusion.card, family="fast")

    known: Models = {**MODELS, "Mine": Mine, "Yours": Yours}
    assert groups.groups_of(known).keys() == groups.groups_of(MODELS).keys()
    assert "Yours" not in chosen_models(["fast"], known)


def test_the_place_of_the_data_is_no_configuration() -> None:
    here, there = (jobs("--data", "IEMOCAP", "--data.root", place)[0] for place in ("/a", "/b"))
    assert here.identity == there.identity and here.words != there.words
    more = jobs("--trainer.max_epochs", "2")[0]
    assert differences(jobs()[0].identity, more.identity) == [
        f"config {jobs()[0].identity['config'][:8]} (now {more.identity['config'][:8]})"
    ]
    assert jobs()[0].folder != more.folder


def test_the_code_of_a_model_is_what_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "plugged"
    (package / "parts").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "parts" / "__init__.py").write_text("")
    (package / "parts" / "layer.py").write_text("width = 3\n")
    (package / "mine.py").write_text("from .parts.layer import width\nclass Mine: pass\n")
    (package / "other.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from importlib import import_module

    mine = import_module("plugged.mine").Mine
    before = code_version(mine, Synthetic)
    (package / "other.py").write_text("x = 2\n")
    (package / "__init__.py").write_text("from plugged.mine import Mine\n")
    assert code_version(mine, Synthetic) == before
    (package / "parts" / "layer.py").write_text("width = 4\n")
    assert code_version(mine, Synthetic) != before
    for name in [name for name in sys.modules if name.startswith("plugged")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("model", MODELS.values())
def test_the_code_of_a_model_leaves_out_the_command_line_and_other_models(model: type) -> None:
    files = imported_files(model, Synthetic)
    assert {model.__module__, Synthetic.__module__, "ifmmin.curves"} <= files.keys()
    outside = ("ifmmin.cli.main", "ifmmin.cli.commands", "ifmmin.results.results", "datamodules.iemocap", "tests")
    assert not [name for name in files if name.startswith(outside)]
    others = {other.__module__ for other in MODELS.values()} - {base.__module__ for base in model.__mro__}
    others -= {base.__module__ for base in getattr(model, "stage1", model).__mro__}
    others -= {Stage1Module.__module__} if issubclass(model, Stage2Module) else set()
    assert not others & files.keys()
