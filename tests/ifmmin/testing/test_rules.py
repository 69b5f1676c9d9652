"""The contract tests for authors: each mistake of the guide is named, and every model that is found passes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.errors import InputError
from ifmmin.base import MissingModalityModule
from ifmmin.testing import RULES, Verdict, check_model, verdicts
from tests.ifmmin.models import Small


class ReadsPadding(Small):
    """Averages over the longest sequence of the batch."""

    def forward(self, batch: Batch) -> Tensor:
        outputs: Tensor = self.offset(torch.ones(len(batch), 1, dtype=self.offset.weight.dtype))
        for modality, reader in enumerate(self.readers.values()):
            seen = visible(batch, modality)
            outputs = outputs + seen.spread(reader(seen.frames.mean(dim=1)))
        return outputs


class ReadsFrames(Small):
    """Takes frames past ``visible``, with all padding of the batch."""

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) + batch.frames[0].nan_to_num().mean(dim=(1, 2))[batch.row, None]


class ReadsNeighbours(Small):
    def forward(self, batch: Batch) -> Tensor:
        outputs = super().forward(batch)
        return outputs - outputs.mean(dim=0)


class ReadsOrder(Small):
    def forward(self, batch: Batch) -> Tensor:
        outputs = super().forward(batch)
        return outputs + 0.1 * torch.arange(len(outputs))[:, None]


class ReadsAbsent(Small):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) + batch.lengths[batch.row, :1] * (~batch.present[:, :1])


class LeavesOut(Small):
    """A parameter has no gradient where audio is absent everywhere."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if not bool(batch.present[:, 0].any()):
            return {"cls": self.offset.weight.sum()}
        return super().losses(batch)


class NotFinite(Small):
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"cls": super().losses(batch)["cls"], "other": self.offset.weight.sum() * torch.inf}


class BadGradient(Small):
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"cls": super().losses(batch)["cls"] + (0 * self.offset.weight).sum().sqrt()}


class TooWide(Small):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.offset = nn.Linear(1, self.task.outputs + 1, bias=False)

    def forward(self, batch: Batch) -> Tensor:
        outputs: Tensor = self.offset(torch.ones(len(batch), 1, dtype=self.offset.weight.dtype))
        return outputs


class AlwaysDrops(Small):
    def forward(self, batch: Batch) -> Tensor:
        return nn.functional.dropout(super().forward(batch), 0.5)


class Remembers(Small):
    """Answers by the mean of what it has answered before, in eval mode too."""

    mean = 0.0

    def forward(self, batch: Batch) -> Tensor:
        outputs = super().forward(batch)
        before, self.mean = self.mean, 0.5 * self.mean + 0.5 * float(outputs.detach().mean())
        return outputs + before


class KeepsTheLast(Small):
    """Answers the same batch alike as often as one likes, and otherwise after another one."""

    first: float | None = None
    last: float | None = None

    def forward(self, batch: Batch) -> Tensor:
        outputs, now = super().forward(batch), float(batch.frames[0].nan_to_num().sum())
        self.first = now if self.first is None else self.first
        self.last = now if now != self.first else self.last
        return outputs if self.last is None else outputs + 1.0


class DrawsElsewhere(Small):
    """Draws a weight by a generator that no seed reaches."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        drawn = np.random.default_rng().standard_normal(self.offset.weight.shape)
        self.offset.weight.data.copy_(torch.from_numpy(drawn))


class ReadsLabels(Small):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) + nn.functional.one_hot(batch.label, 4)


class TakesNothing(Small):
    def __init__(self) -> None:
        super().__init__(feature_dims=[5, 6, 7])


class AnswersAudioAlone(Small):
    """Right, though there are batches of which it answers no row."""

    def answers(self, condition: str) -> bool:
        return condition == "a"


class OddOption(Small):
    def __init__(self, *, activation: Any = torch.relu, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class Fails(Small):
    def forward(self, batch: Batch) -> Tensor:
        raise RuntimeError("first line\nsecond line")


class ReadsWhatIsLost(Small):
    """Has a target past ``visible``."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        target = batch.frames[1].sum(dim=(1, 2))[batch.row]
        return {**super().losses(batch), "other": (self(batch).sum(dim=1) - target).square().mean()}


class WantsCompleteUtterances(Small):
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        whole = batch.available.all(dim=1)
        return {"cls": self.task.loss(self(batch.unmasked())[whole], batch.targets[whole])}


class LeavesOutWhatNobodyHas(Small):
    """A part that is trained on complete utterances has no gradient where no utterance has visual frames."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        losses, seen = super().losses(batch), visible(batch.unmasked(), 1)
        rest = sum(parameter.sum() for name in "at" for parameter in self.readers[name].parameters())
        if not len(seen.rows):
            return {"cls": self.offset.weight.sum() + 0 * rest}
        return losses


class KnowsWhatIsLost(Small):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) + batch.available.sum(dim=1)[batch.row, None]


class Embeds(Small):
    """Shows embeddings, and imagines their mean over what is present."""

    def modality_embeddings(self, batch: Batch) -> Tensor:
        return self.h(batch)

    def h(self, batch: Batch) -> Tensor:
        columns = []
        for modality, reader in enumerate(self.readers.values()):
            seen = visible(batch, modality)
            columns.append(seen.spread(reader(seen.frames.sum(dim=1) / seen.lengths[:, None])))
        return torch.stack(columns, dim=1)

    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        h = self.h(batch)
        mean = h.sum(dim=1, keepdim=True) / batch.present.sum(dim=1)[:, None, None]
        return mean.expand_as(h), self.h(batch.unmasked())[batch.row].detach()


class FlatEmbeddings(Embeds):
    def modality_embeddings(self, batch: Batch) -> Tensor:
        return self.h(batch).flatten(1)


class InvariantToNothing(Embeds):
    def invariant_features(self, batch: Batch) -> Tensor:
        return self.h(batch).log()


class ImaginesTheTruth(Embeds):
    """Imagines from what is absent itself."""

    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        true = super().imagined_embeddings(batch)[1]
        return true.nan_to_num(), true


class MaskedTruth(Embeds):
    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return super().imagined_embeddings(batch)[0], self.h(batch).detach()


class TeachesItself(Embeds):
    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return super().imagined_embeddings(batch)[0], self.h(batch.unmasked())[batch.row]


class OtherTruth(Embeds):
    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        imagined, true = super().imagined_embeddings(batch)
        return imagined, true[..., :2]


class WideValues(Small):
    def row_values(self, batch: Batch) -> dict[str, Tensor]:
        return {"width": batch.present.double()}


class InfiniteValues(Small):
    def row_values(self, batch: Batch) -> dict[str, Tensor]:
        return {"width": torch.full((len(batch),), torch.inf)}


class ValuesOfWhatIsHidden(Small):
    def row_values(self, batch: Batch) -> dict[str, Tensor]:
        return {"width": batch.lengths[batch.row].sum(dim=1).double()}


MISTAKES = [
    (WideValues, "row_values gives width [8, 3] for 8 rows, not [8]"),
    (InfiniteValues, "row_values gives width that is infinite"),
    (ValuesOfWhatIsHidden, "row_values gives width that changes by "),
    (FlatEmbeddings, "modality_embeddings gives [8, 12] for 8 rows, not [8, 3, E]"),
    (InvariantToNothing, "invariant_features gives values that are not finite"),
    (ImaginesTheTruth, "imagined_embeddings changes by "),
    (MaskedTruth, "what imagined_embeddings should imagine changes by "),
    (TeachesItself, "what imagined_embeddings should imagine has a gradient: detach it"),
    (OtherTruth, "imagined_embeddings gives [8, 3, 4] and [8, 3, 2], not one shape"),
    (ReadsFrames, "with more padding: divide by seen.lengths"),
    (ReadsPadding, "in a batch and alone differ by "),
    (ReadsNeighbours, "in a batch and alone differ by "),
    (ReadsOrder, "with the order of the batch"),
    (ReadsAbsent, "with what is absent: read frames through visible() alone"),
    (LeavesOut, "with only v present, parameter readers."),
    (ReadsWhatIsLost, "with gaps at random, its losses or gradients change with what does not exist"),
    (WantsCompleteUtterances, "with no audio in any utterance, loss cls is no finite scalar"),
    (LeavesOutWhatNobodyHas, "with no visual in any utterance, parameter readers.v."),
    (KnowsWhatIsLost, "with gaps at random, its answers change by "),
    (NotFinite, "loss other is no finite scalar"),
    (BadGradient, "parameter offset.weight has a gradient that is not finite"),
    (TooWide, "forward gives [8, 5] for 8 rows, not [8, 4]"),
    (AlwaysDrops, "two answers to the same batch differ in eval mode"),
    (Remembers, "two answers to the same batch differ in eval mode: draw nothing"),
    (KeepsTheLast, "its answer to a batch is another one after other batches, in eval mode: keep nothing"),
    (DrawsElsewhere, "two models that are made with the same seed answer differently: draw weights by torch's"),
    (ReadsLabels, "with the labels: read batch.label and batch.target in losses alone"),
    (TakesNothing, "it fails with TypeError (TakesNothing.__init__() got an unexpected keyword argument"),
    (OddOption, "option activation is no plain value"),
    (Fails, "it fails with RuntimeError (first line): see test_rules.py, line "),
]


@pytest.mark.parametrize(("model", "expected"), MISTAKES)
def test_a_mistake_is_named_in_one_line(model: type[MissingModalityModule], expected: str) -> None:
    with pytest.raises(InputError) as wrong:
        check_model(model)
    line = str(wrong.value)
    assert line.startswith(f"{model.__name__}: ")
    assert expected in line
    assert line.isprintable()


def wrong(model: type[MissingModalityModule], **options: Any) -> list[Verdict]:
    """The verdicts that are against a model."""
    return [verdict for verdict in verdicts(model, **options) if not verdict.passed]


def test_what_cannot_be_made_or_answers_nothing_is_tried_no_further() -> None:
    for model, name in ((TakesNothing, "made"), (Fails, "answers")):
        failed, *rest = wrong(model)
        assert (failed.rule.name, failed.tried, len(failed.failures)) == (name, True, 1)
        assert [verdict.rule for verdict in rest] == list(RULES[RULES.index(failed.rule) + 1 :])
        assert not any(verdict.tried or verdict.failures for verdict in rest)


def test_an_option_out_of_range_is_no_verdict_on_the_model() -> None:
    with pytest.raises(InputError, match="batch_size 0: it must be at least 1"):
        list(verdicts(Small, batch_size=0))


def test_the_generators_of_who_asks_are_left_alone() -> None:
    def state() -> list[Any]:
        kind, numbers, *rest = np.random.get_state(legacy=True)
        return [torch.get_rng_state().tolist(), random.getstate(), kind, list(numbers), rest]

    before = state()
    check_model(Small)
    assert state() == before


@pytest.mark.parametrize("seed", range(3))
def test_a_right_model_passes(seed: int) -> None:
    check_model(Small, seed)
    check_model(Embeds, seed)
    check_model(AnswersAudioAlone, seed)
