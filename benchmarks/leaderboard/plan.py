"""Which runs a board consists of: every model on every fold with every seed, and the stage 1 they start from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

from jsonargparse import Namespace

from benchmarks.leaderboard.groups import groups_of
from benchmarks.leaderboard.identity import code_version, digest, identity
from datamodules.base import EmotionDataModule
from datamodules.errors import InputError
from datamodules.storage.layouts import Layout
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.cli.arguments import Parser, first_look
from ifmmin.cli.failures import input_error_in
from ifmmin.cli.rehearsal import rehearse
from ifmmin.discovery import BASELINES_PACKAGE, Models, check_name, find_corpus, find_model, path_of
from ifmmin.pretraining.stage1 import Stage1Module
from ifmmin.pretraining.stage2 import Stage2Module

Words = tuple[str, ...]
Option = Words  # one option: its name and its values

OWN = {
    "--model": "the models are those of --models",
    "--data.fold": "the board runs all folds, or those of --folds",
    "--data.seed": "the board runs the seeds of --seeds",
    "--seed_everything": "the board runs the seeds of --seeds",
    "--run_dir": "each run has a folder of its own in --board",
    "--ckpt_path": "each run starts anew; what is in --board is gone on with",
    "--resume": "the same command goes on with what is in --board",
    "--test": "every run is tested, for the test is what the board shows",
    "--intervals": "the board's spread is over folds and seeds",
    "--config": "give options, of which each run's identity is made",
    "-c": "give options, of which each run's identity is made",
    "--print_config": "each run's config.yaml is in its folder in --board",
    "--trainer.default_root_dir": "each run has a folder of its own in --board",
    "--trainer.logger": "each run logs into its folder; see --wandb",
    "--data.predict_split": "the board predicts the test split",
}
"""Options of ``fit`` that the board sets itself, and what it does instead."""

ONE_DEVICE = {"--trainer.devices": ("1", "auto"), "--trainer.num_nodes": ("1",)}
"""Options of ``fit`` that would spread a run, and what they may be on a board."""

_WHOLE = ("--model", "--test", "-c")
"""Those of them that are no beginning of other options."""


@dataclass(frozen=True)
class Job:
    """One ``fit`` in a process of its own.

    Attributes:
        model: the name that ``--model`` takes.
        name: the model's class name.
        fold: from 1.
        seed: of initialisation, order, masks and dropout.
        words: further words of the command line.
        data: those of them that configure the data.
        identity: what the result depends on, see :mod:`benchmarks.leaderboard.identity`.
        stage1: the job whose best checkpoint this one starts from; None where the model has no stage 1
            or was given one.
        pretraining: whether this is a stage 1, which is trained for others and is not on the board.
        logging: words that set where it logs and what watches it, which changes nothing of the result.
        apart: folder of a run that is on no board, such as a trial of a search: it is trained, not recorded.
    """

    model: str
    name: str
    fold: int
    seed: int
    words: Words
    data: Words
    identity: Mapping[str, Any] = field(hash=False)
    stage1: Job | None = None
    pretraining: bool = False
    logging: Words = ()
    apart: str = ""

    @property
    def recorded(self) -> bool:
        """Whether it is a run of the board."""
        return not (self.pretraining or self.apart)

    @property
    def key(self) -> tuple[str, int, int]:
        """Its place on the board."""
        return self.name, self.fold, self.seed

    @property
    def folder(self) -> str:
        """Of the run, relative to the board's; another one for every identity, so that none goes on with another's."""
        if self.apart:
            return self.apart
        place = "stage1" if self.pretraining else "runs"
        mark = digest([repr(sorted(self.identity.items())).encode()])[:8]
        return f"{place}/fold{self.fold}/{self.name}-seed{self.seed}-{mark}"

    def __str__(self) -> str:
        """As progress and errors name it."""
        return f"{self.name} fold {self.fold} seed {self.seed}" + (" (stage 1)" if self.pretraining else "")

    def to_json(self) -> dict[str, Any]:
        """Plain values, for another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """What :meth:`to_json` gave."""
        stage1 = cls.from_json(values["stage1"]) if values["stage1"] else None
        words = {name: tuple(values[name]) for name in ("words", "data", "logging")}
        return cls(**{**values, **words, "stage1": stage1})


@dataclass(frozen=True)
class Settings:
    """The options that are passed on to every ``fit``, sorted by what they configure.

    Attributes:
        data: of the corpus (``--data...``).
        trainer: of Lightning's trainer (``--trainer...``).
        model: of every model (``--model.X V``).
        models: of single models (``--IFMMIN.X V``), by name.
    """

    data: tuple[Option, ...]
    trainer: tuple[Option, ...]
    model: tuple[Option, ...]
    models: Mapping[str, tuple[Option, ...]]

    def of(self, name: str) -> tuple[Option, ...]:
        """The settings of one model, as ``--model.X V``."""
        own = ((f"--model.{option[0].partition('.')[2]}", *option[1:]) for option in self.models.get(name, ()))
        return (*self.model, *own)


def sort_settings(words: Sequence[str], models: Iterable[str], who: str = "board") -> Settings:
    """Sort the words that the board itself does not know.

    Args:
        words: of the command line.
        models: names that may begin an option of a single model.
        who: sets some options itself, for the messages.

    Raises:
        InputError: a word belongs to nothing, or to what the board sets itself.
    """
    passed_on: dict[str, list[Option]] = {"--data": [], "--trainer": [], "--model": []}
    single: dict[str, list[Option]] = {f"--{name}": [] for name in models}
    every = " (every model) and --MODEL.X (one model)" if single else ""
    for option in _options(words):
        if instead := next((how for theirs, how in OWN.items() if _is(option[0], theirs)), None):
            instead = instead.replace("board", who)
            raise InputError(f"{printable(option[0])}: the {who} sets it itself: {instead}.")
        if option[0] in ONE_DEVICE and option[1:] not in [(value,) for value in ONE_DEVICE[option[0]]]:
            raise InputError(
                f"{printable(' '.join(option), 60)}: each run of a {who} is on one device; leave it out, and give "
                "--jobs, how many run at once."
            )
        head, dot, _ = option[0].partition(".")
        group = (passed_on | single).get(head)
        if group is None or not (dot or head == "--data"):
            raise InputError(
                f"{printable(option[0])}: not known.{_near(option[0], single)} The {who} takes its own options "
                f"(--help), and --data..., --trainer.X, --model.X{every}, which go to `fit`."
            )
        group.append(option)
    if all(option[0] != "--data" for option in passed_on["--data"]):
        passed_on["--data"].insert(0, ("--data", "Synthetic"))  # the default of `fit`
    return Settings(
        data=tuple(passed_on["--data"]),
        trainer=tuple(passed_on["--trainer"]),
        model=tuple(passed_on["--model"]),
        models={head.removeprefix("--"): tuple(options) for head, options in single.items() if options},
    )


def _is(option: str, own: str) -> bool:
    """Whether an option is ``own``, or a part of it such as ``--trainer.logger.project``."""
    return option.rstrip("+") == own or (own not in _WHOLE and option.startswith(f"{own}."))


def _near(option: str, models: Iterable[str]) -> str:
    """A hint at the head that is nearly the option's."""
    head, dot, rest = option.partition(".")
    near = difflib.get_close_matches(head, [*models, "--data", "--trainer", "--model"], n=1, cutoff=0.7)
    return f" Did you mean {near[0]}{dot}{printable(rest)}?" if near and near[0] != head else ""


def _options(words: Sequence[str]) -> list[Option]:
    """Split ``--a 1 --b=2 --c 3 4`` into ``(--a, 1), (--b, 2), (--c, 3, 4)``."""
    options: list[list[str]] = []
    for word in words:
        if word.startswith("--") or word == "-c":
            name, equals, value = word.partition("=")
            options.append([name, value] if equals else [name])
        elif options:
            options[-1].append(word)
        else:
            raise InputError(f"{printable(word) or 'an empty word'}: belongs to no option.")
    return [tuple(option) for option in options]


def make_data(words: Sequence[str], fold: int, seed: int) -> EmotionDataModule:
    """Make the datamodule that ``fit`` would make of the words that configure the data.

    Raises:
        InputError: a setting is unknown or the corpus is not there.
    """
    parser, config = _parsed([*words, "--data.fold", str(fold), "--data.seed", str(seed)])
    data = parser.instantiate_classes(config).data
    assert isinstance(data, EmotionDataModule)
    return data


def _parsed(words: Sequence[str]) -> tuple[Parser, Namespace]:
    if name := first_look(words).data:
        find_corpus(name)  # jsonargparse knows a class by its name only once it is imported
    parser = Parser()
    parser.add_subclass_arguments(EmotionDataModule, "data", required=True)
    return parser, parser.parse_args(list(words))


def corpus_layout(settings: Settings) -> Layout:
    """What the corpus that the settings mean looks like.

    Raises:
        InputError: a setting is unknown, the corpus is not there, or its class takes no fold or seed.
    """
    _, config = _parsed([word for option in settings.data for word in option])
    corpus, given = corpus_class(settings), vars(config.data.init_args)
    if lacking := [name for name in ("fold", "seed") if name not in given]:
        raise InputError(
            f"{corpus.__name__}: takes no --data.{lacking[0]}, which a board sets; let its __init__ take **kwargs and "
            "pass them on."
        )
    return corpus.layout_meant(given)


def chosen_models(names: Sequence[str], known: Models) -> Models:
    """The models to run, by class name.

    Args:
        names: of known models, of groups of them (:mod:`benchmarks.leaderboard.groups`), or class paths of any.
        known: by name.

    Raises:
        InputError: one is unknown, cannot be imported, predicts nothing, or shares its name with another.
    """
    chosen: Models = {}
    groups = groups_of(known)
    for name in names:
        found = None if name in known else groups.get(name)
        if found is None:
            check_name(name, [*known, *groups], "model or group")
            model = known.get(name) or find_model(name)
            found = {model.__name__: model}
        for each, model in found.items():
            if chosen.setdefault(each, model) is not model:
                raise InputError(f"--models {printable(name)}: another model of the board is named {each}; rename one.")
    return chosen


def corpus_class(settings: Settings) -> type[EmotionDataModule]:
    """The datamodule that ``--data NAME`` means.

    Raises:
        InputError: it is unknown.
    """
    name = next((" ".join(option[1:]) for option in settings.data if option[0] == "--data"), "")
    return find_corpus(name)


@dataclass(frozen=True)
class Cell:
    """One fold and seed of the board.

    Attributes:
        corpus: the class of the datamodule.
        fold: from 1.
        seed: of the runs.
        fingerprint: of the fold's data.
        threads: of PyTorch in each run.
    """

    corpus: type[EmotionDataModule]
    fold: int
    seed: int
    fingerprint: str
    threads: int

    def job(
        self,
        name: str,
        model: type[MissingModalityModule],
        options: Sequence[Option],
        wrapped: type[MissingModalityModule] | None = None,
        **rest: Any,
    ) -> Job:
        """The job that trains ``model`` here, and before it the model that it wraps."""
        # The fingerprint tells which data these are, wherever their files are.
        placeless = [word for option in options if option[0] != "--data.root" for word in option]
        depends_on = identity(model, self.corpus, placeless, self.fingerprint, self.threads)
        if wrapped is not None:
            both = (str(depends_on["code"]), code_version(wrapped, self.corpus))
            depends_on["code"] = digest(part.encode() for part in both)
        words = tuple(word for option in options for word in option)
        data = tuple(word for option in options if option[0].startswith("--data") for word in option)
        return Job(name, model.__name__, self.fold, self.seed, words, data, depends_on, **rest)


def make_jobs(
    models: Models, settings: Settings, fingerprints: Mapping[int, str], seeds: Sequence[int], threads: int
) -> list[Job]:
    """All runs of a board, fold by fold and seed by seed, so that a board cut short is balanced.

    Args:
        models: by name.
        settings: passed on to every run.
        fingerprints: of the data, by fold.
        seeds: of the runs.
        threads: of PyTorch in each run.
    """
    jobs: list[Job] = []
    for fold, seed in product(fingerprints, seeds):
        cell = Cell(corpus_class(settings), fold, seed, fingerprints[fold], threads)
        common = (*settings.data, *settings.trainer)
        for name, model in models.items():
            own = settings.of(name)
            # A name of ours is known to every process; another class is found by its path alone.
            ours = model.__module__.partition(".")[0] in ("ifmmin", BASELINES_PACKAGE)
            path = name if ours else path_of(model) or name
            stage1 = None
            first = model.stage1_of(_plain_options(own)) if issubclass(model, Stage2Module) else None
            given = any(option[0] == "--model.pretrained" for option in own)
            if first is not None and issubclass(first, Stage1Module) and not given:
                place = f"{first.__module__}.{first.__qualname__}"
                stage1 = cell.job(place, first, (*common, *_stage1_options(first, own)), pretraining=True)
            # A model that is wrapped is trained by the run itself, which so depends on its code too.
            wrapped = None if first is None or issubclass(first, Stage1Module) else first
            jobs.append(cell.job(path, model, (*common, *own), wrapped=wrapped, stage1=stage1))
    return jobs


def rehearse_models(models: Models, settings: Settings, data: EmotionDataModule) -> None:
    """Refuse settings that ``fit`` would refuse, before the first run.

    Args:
        models: by name; those without settings of their own are as they always are.
        settings: passed on to every run.
        data: of the first fold, set up.

    Raises:
        InputError: naming the option as it was given, or the model.
    """
    with_own = [name for name in models if settings.of(name)]
    of_trainer = [*models][:1] if settings.trainer and not with_own else []
    for name in with_own or of_trainer:
        words = [word for option in (*settings.data, *settings.trainer, *settings.of(name)) for word in option]
        try:
            rehearse(["--model", path_of(models[name]) or name, *words, "--data.fold", str(data.fold)], data)
        except Exception as error:  # jsonargparse wraps what a class refuses
            if (refused := input_error_in(error)) is None:
                raise
            raise InputError(_of_model(str(refused), name, settings)) from error


def _of_model(line: str, name: str, settings: Settings) -> str:
    """The line of a ``fit``, with the option as the board takes it, or with the model."""
    for option in settings.models.get(name, ()):
        leaf = option[0].partition(".")[2]
        line = re.sub(rf"--model\.{re.escape(leaf)}\b", option[0], line)
        line = line.replace("Did you mean --model.", f"Did you mean --{name}.")
    line = line.replace("See --model.help.", f"See: fit --model.help {name}.")
    named = line.startswith((f"--{name}.", f"{name}:", "--trainer", "--data"))
    return line if named else f"{name}: {line}"


def _plain_options(own: Iterable[Option]) -> dict[str, str]:
    """Options of a model by name, as text."""
    return {option[0].removeprefix("--model."): " ".join(option[1:]) for option in own}


def _stage1_options(stage1: type[Stage1Module], own: Iterable[Option]) -> list[Option]:
    """Those settings of a stage-2 model that stage 1 shares, and after them those that are meant for it alone."""
    prefix = "--model.pretraining."
    names = {f"--model.{name}" for name in stage1.architecture}
    own = list(own)
    if any(option[0] == prefix[:-1] for option in own):
        raise InputError(f"pretraining: give its options one by one, such as --MODEL{prefix[7:]}learning_rate 1e-3.")
    meant = [
        (f"--model.{option[0].removeprefix(prefix)}", *option[1:]) for option in own if option[0].startswith(prefix)
    ]
    return [option for option in own if option[0] in names] + meant
