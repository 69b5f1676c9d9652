"""The rules of the contract, each with the check of it, and the verdicts on a model."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng

from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.testing.answers import absent, answers, company, inside, labels, padding, repeats
from ifmmin.testing.options import options as plain_options
from ifmmin.testing.state import state
from ifmmin.testing.training import gaps, gradients
from ifmmin.testing.trial import Failure, Trial
from ifmmin.testing.turns import turns

__all__ = ["RULES", "Failure", "Rule", "Verdict", "check_model", "verdicts"]


@dataclass(frozen=True)
class Rule:
    """A rule of the contract.

    Attributes:
        name: in a word or two.
        holds: what must hold.
        check: finds what breaks it; empty if nothing does.
        first: whether no later rule can be tried on a model that breaks it.
    """

    name: str
    holds: str
    check: Callable[[Trial], list[Failure]]
    first: bool = False


@dataclass(frozen=True)
class Verdict:
    """What a rule says of a model.

    Attributes:
        rule: the rule.
        failures: what breaks it; empty if it holds.
        tried: whether it was tried at all.
        error: what the model raised.
    """

    rule: Rule
    failures: list[Failure] = field(default_factory=list)
    tried: bool = True
    error: BaseException | None = None

    @property
    def passed(self) -> bool:
        """Whether the rule was tried and holds."""
        return self.tried and not self.failures


MADE = Rule("made", "the class takes what follows the data, and its options have defaults", lambda trial: [], True)

RULES = (
    MADE,
    Rule("options", "options are plain values that a checkpoint gives back", plain_options),
    Rule("answers", "forward gives a finite output per row", answers, True),
    Rule("repeats", "the same seed and batch give the same answers", repeats),
    Rule("padding", "answers do not depend on padding", padding),
    Rule("company", "answers do not depend on the rest of the batch, nor on its order", company),
    Rule("absent", "answers do not depend on content or length of what is absent", absent),
    Rule("labels", "labels are no input", labels),
    Rule("turns", "answers read earlier turns if needs says so, no later ones, no other rows", turns),
    Rule("inside", "what it shows of its inside has its shape and ignores what is absent", inside),
    Rule("gradients", "losses are finite and reach every parameter under every mask", gradients),
    Rule("gaps", "what utterances lack for good is neither input nor target", gaps),
    Rule("state dict", "a model that loads the state dict of another answers as that does", state),
)
"""In the order in which they are tried."""


def verdicts(model: type[MissingModalityModule], seed: int = 0, **options: Any) -> Iterator[Verdict]:
    """Try the rules one after the other.

    Args:
        model: the class.
        seed: of weights and utterances.
        **options: of the model, for instance to make it small.

    Yields:
        a verdict for each of :data:`RULES`, as soon as it is known.

    Raises:
        InputError: the model refuses ``options``.
    """
    trial: Trial | None = None
    stopped = False
    for number, rule in enumerate(RULES):
        if stopped:
            yield Verdict(rule, tried=False)
            continue
        try:
            with isolate_rng():
                if trial is None:
                    trial = Trial(model, seed, options)
                torch.manual_seed(seed + number + 1)
                verdict = Verdict(rule, rule.check(trial))
        except (Exception, SystemExit) as error:  # somebody else's code may fail in any way
            if trial is None and isinstance(error, InputError):
                raise
            verdict = Verdict(rule, [_raised(model, error)], error=error)
        stopped = rule.first and not verdict.passed
        yield verdict


def check_model(model: type[MissingModalityModule], seed: int = 0, **options: Any) -> None:
    """Check what every model must keep to, on random utterances in float64.

    - Answers are finite, repeat, and do not depend on padding, on the rest of a batch, on its order, on labels, or on
      the content and length of what is absent.
    - Losses are finite scalars whose gradient reaches every parameter, whatever is missing.
    - Of a corpus with gaps: what an utterance lacks for good is neither read nor a target, is answered as if it were
      masked, and leaves losses and gradients finite, though a whole batch may lack a modality, or have no complete
      utterance.
    - Of a model with ``needs.turns``, whose batches are chains of turns here: an answer depends on the turns before it
      in its chain alone, whatever the order of rows; without turns each utterance is alone.
    - Options are plain values that a checkpoint gives back, and the state dict has all else that answers need.
    - ``modality_embeddings``, ``invariant_features`` and ``imagined_embeddings``, of a model that has them, have their
      shape, are finite, and do not depend on what is absent; so do ``row_values``, which may be NaN.

    Args:
        model: the class.
        seed: of weights and utterances.
        **options: of the model, for instance to make it small.

    Raises:
        InputError: one line for everything that is wrong, naming the model and what to do.
    """
    found = list(verdicts(model, seed, **options))
    wrong = dict.fromkeys(str(failure) for verdict in found for failure in verdict.failures)
    if wrong:
        cause = next((verdict.error for verdict in found if verdict.error is not None), None)
        raise InputError(f"{printable(model.__name__)}: {'; '.join(wrong)}.") from cause


def _raised(model: type[MissingModalityModule], error: BaseException) -> Failure:
    """Say what a model raised, and at which line of its file."""
    line = printable(str(error).partition("\n")[0], 200)
    frames = traceback.extract_tb(error.__traceback__)
    try:
        source = inspect.getsourcefile(model)
    except TypeError:
        source = None
    frame = next((each for each in reversed(frames) if each.filename == source), frames[-1])
    place = f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}"
    return Failure(
        f"it fails with {type(error).__name__}{f' ({line})' if line else ''}", f"see {printable(place, 200)}"
    )
