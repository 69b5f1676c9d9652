"""LinearImputation: impute the mean frame of what is absent by regression, and answer by regression."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, reduce
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.linear_imputation.regression import Moments, Regression, Sums
from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.conditions import CONDITION_TABLE, CONDITIONS, MODALITIES, present_under
from datamodules.errors import InputError
from datamodules.ranges import NOT_EMPTY, NOT_NEGATIVE, WIDTH, Range
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.optimization import Recipe

FEW = 2
"""So few utterances tell no regression, and no mean."""


class Mixture(nn.Module):
    """Weigh the answers of the three modalities, with weights and an offset for each condition.

    Args:
        outputs: O.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(len(CONDITIONS), len(MODALITIES)))
        self.offset = nn.Parameter(torch.zeros(len(CONDITIONS), outputs))

    def forward(self, answers: Tensor, condition: Tensor) -> Tensor:
        """Mix answers [B, 3, O] under conditions int64 [B]: [B, O]."""
        mixed: Tensor = (self.weights[condition][..., None] * answers).sum(dim=1) + self.offset[condition]
        return mixed


class LinearImputation(MissingModalityModule):
    r"""Linear regression throughout: the reference that a network has to beat.

    A model of this library. With x_m the mean frame of modality m,

    .. math::
        \hat x_m = x_m \text{ where present, else } A_{c,m} x_c, \qquad
        \hat y = \sum_m w_{c,m} B_m \hat x_m + b_c

    x_c: the mean frames of what is present under condition c. A_{c,m} imputes modality m, and B_m answers from it
    alone. Both are regressions in principal components on the unmasked training utterances, in closed form;
    generalised cross-validation chooses the number of components and the shrinkage. Only w and b are trained, by the
    task's loss under the training mask and on complete utterances. They see answers of regressions that were not
    fitted to the utterance: the training utterances are divided into ``parts``, and the regressions on the other
    parts answer each (stacked generalisation; Wolpert, Neural Networks 1992). Otherwise the modality that is fitted
    most closely would be trusted most.

    An imputed mean frame is a linear function of what is present, so a linear answer could be the same without it.
    But wide and noisy features need not learn the answer from few labels: they learn the easy modality, which gives
    as many targets as it has features.

    Our choices: all of it. In a corpus with gaps A_{c,m} is fitted to the utterances that have all of c and m, B_m to
    those that have m; w and b are trained on all that the corpus has of an utterance. The built-in corpora are linear
    and Gaussian, which suits this model; what it reaches there says nothing about others.

    Args:
        parts: number of parts of the training utterances.
        components: numbers of principal components to choose from.
        shrinkages: shrinkages of the coefficients to choose from.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.
    """

    card = ModelCard(
        "Linear imputation",
        "imputes the mean frame of what is absent by linear regression, in closed form",
        family="imagination",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=0.02, constant_epochs=10, decay_epochs=10)
    maps: Tensor
    table: Tensor

    def __init__(
        self,
        *,
        parts: Annotated[int, Range(2, 100)] = 5,
        components: Annotated[list[int], WIDTH, NOT_EMPTY] = [4, 8, 16, 32, 64, 128],
        shrinkages: Annotated[list[float], NOT_NEGATIVE, NOT_EMPTY] = [0.0, 0.1, 0.3, 1.0, 3.0, 10.0],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.parts, self.components, self.shrinkages = parts, components, shrinkages
        self.mixture = Mixture(self.task.outputs)
        # [parts + 1, 7, 1 + D, 3, O], of all utterances and of those outside each part: the product of imputation and
        # answer is all that is kept. Random until training starts, as a layer's weights are.
        width = sum(self.feature_dims)
        maps = torch.randn(len(CONDITIONS), 1 + width, len(MODALITIES), self.task.outputs) * width**-0.5
        maps *= torch.stack([self._seen(condition) for condition in CONDITIONS])[..., None, None]
        self.register_buffer("maps", maps.expand(parts + 1, *maps.shape).clone())
        self.register_buffer("table", CONDITION_TABLE.clone(), persistent=False)

    def _seen(self, condition: str) -> Tensor:
        """Bool [1 + D]: the offset, and the features of what is present under ``condition``."""
        present = [
            torch.tensor([shown]).expand(dim)
            for shown, dim in zip(present_under(condition), self.feature_dims, strict=True)
        ]
        return torch.cat([torch.tensor([True]), *present])

    def mean_frames(self, batch: Batch) -> Tensor:
        """[B, 1 + D]: 1, and the mean frames of audio, visual and text, zero where absent."""
        columns = []
        for modality in range(len(MODALITIES)):
            seen = visible(batch, modality)
            columns.append(seen.spread(seen.frames.sum(dim=1) / seen.lengths[:, None]))  # padding is zero
        return torch.cat([torch.ones_like(columns[0][:, :1]), *columns], dim=1)

    def modality_embeddings(self, batch: Batch, part: Tensor | None = None) -> Tensor:
        """Compute what each modality answers, B_m x̂_m, imputed where it is absent.

        Args:
            batch: B rows.
            part: int64 [B], the part that the regressions were not fitted to; None: those of all utterances.

        Returns:
            [B, 3, O].
        """
        maps = self.maps[:1] if part is None else self.maps[1:]
        every = torch.einsum("bd,pcdmo->bpcmo", self.mean_frames(batch), maps)
        condition, rows = self._condition(batch), torch.arange(len(batch), device=every.device)
        return every[rows, torch.zeros_like(rows) if part is None else part, condition]

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        outputs: Tensor = self.mixture(self.modality_embeddings(batch), self._condition(batch))
        return outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the task's loss under the training mask and on complete utterances.

        Both by regressions that do not know the utterance.
        """
        found = {}
        for name, rows in {"cls": batch, "complete": batch.unmasked()}.items():
            answers = self.modality_embeddings(rows, self._part(rows)[rows.row])
            found[name] = self.task.loss(self.mixture(answers, self._condition(rows)), rows.target)
        return found

    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What each modality answers, imputed, and from its own frames, each [B, 3, O]."""
        return self.modality_embeddings(batch), self.modality_embeddings(batch.unmasked())[batch.row].detach()

    def on_train_start(self) -> None:
        """Fit all regressions to the training utterances, each to those that have what it relates.

        Raises:
            InputError: a feature is too large for its square.
        """
        data = self.datamodule
        batches = self.trainer.train_dataloader if data is None else data.in_order("train")
        assert batches is not None
        found: dict[str, Moments] = {}
        for stored in batches:
            batch = stored.to(self.device, self.maps.dtype).unmasked()
            rows = torch.cat([self.mean_frames(batch)[:, 1:], self._answers_to_give(batch)], dim=1)
            has = self._condition(batch)
            for number in has.unique().tolist():
                columns, here = self._columns(CONDITIONS[number]), has == number
                if CONDITIONS[number] not in found:
                    found[CONDITIONS[number]] = Moments(self.parts, len(columns), self.device)
                found[CONDITIONS[number]].add(rows[here][:, columns.to(rows.device)], self._part(batch)[here])
        if not all(bool(moments.products.isfinite().all()) for moments in found.values()):
            raise InputError(f"{type(self).__name__}: a feature is too large to be squared; scale the features down.")
        for number, part in enumerate([None, *range(self.parts)]):
            self.maps[number] = self._fitted({name: moments.without(part) for name, moments in found.items()})

    def _columns(self, modalities: str) -> Tensor:
        """Positions of the features of some modalities, ``"at"``, and of the targets, in [features; targets]."""
        edges = torch.tensor([0, *self.feature_dims, self.task.outputs]).cumsum(0).tolist()
        spans = [torch.arange(start, stop) for start, stop in pairwise(edges)]
        return torch.cat([*(spans["avt".index(letter)] for letter in modalities), spans[-1]])

    def _condition(self, batch: Batch) -> Tensor:
        """int64 [B], positions in CONDITIONS."""
        return (batch.present[:, None] == self.table).all(dim=2).int().argmax(dim=1)

    def _part(self, batch: Batch) -> Tensor:
        """int64 [N], the part of each stored utterance."""
        return batch.index % self.parts

    def _answers_to_give(self, batch: Batch) -> Tensor:
        """Targets [N, O] of a least-squares answer: one-hot labels, their probabilities, or values."""
        targets = batch.targets
        if targets.ndim == 1 and not targets.is_floating_point():
            targets = F.one_hot(targets, self.task.outputs)
        return targets.view(len(targets), -1).to(self.maps.dtype)

    def _fitted(self, found: Mapping[str, Sums]) -> Tensor:
        """Maps [7, 1 + D, 3, O] of utterances whose sums are given by what they have."""
        outputs, dims = self.task.outputs, dict(zip("avt", self.feature_dims, strict=True))

        @cache
        def over(modalities: str) -> tuple[tuple[str, ...], Sums]:
            """Sums of features and targets over the utterances that have ``modalities``, and what else these have."""
            having = tuple(name for name in found if set(modalities) <= set(name))
            columns = self._columns(modalities)
            parts = [found[name].of(torch.searchsorted(self._columns(name), columns)) for name in having]
            nothing = torch.zeros(len(columns), dtype=torch.float64, device=self.maps.device)
            none = Sums(0.0, nothing, torch.outer(nothing, nothing))
            return having, reduce(Sums.with_more, parts) if parts else none

        @cache
        def scale(modality: str) -> Tensor:
            rows, _, scatter = over(modality)[1]
            spread = (scatter.diagonal()[: dims[modality]] / max(rows, 1.0)).sqrt()
            return spread.where(spread > 0, 1.0)

        @cache
        def standardised(modalities: str) -> Tensor:
            scales = torch.cat(
                [*map(scale, modalities), torch.ones(outputs, dtype=torch.float64, device=self.maps.device)]
            )
            return over(modalities)[1].scatter / torch.outer(scales, scales)

        regressions: dict[tuple[str, tuple[str, ...]], Regression] = {}

        def fit(condition: str, wanted: str) -> Tensor:
            """Coefficients of modality ``wanted``, or of the targets (""), on what is present under ``condition``."""
            modalities = "".join(sorted(condition + wanted, key="avt".index))
            having, sums = over(modalities)
            scatter, places = standardised(modalities), self._places(modalities)
            x = torch.cat([places[letter] for letter in condition])
            y = places[wanted]
            if (condition, having) not in regressions:  # without gaps one for all that is wanted
                made = Regression(sums.rows, scatter[x][:, x], self.components, self.shrinkages)
                regressions[condition, having] = made
            return regressions[condition, having].fit(scatter[x][:, y], scatter.diagonal()[y].sum())

        def mean(modalities: str, letter: str) -> Tensor:
            return over(modalities)[1].mean[self._places(modalities)[letter]]

        answer = {letter: fit(letter, "") for letter in "avt"}
        maps = torch.zeros(self.maps.shape[1:], dtype=torch.float64, device=self.maps.device)
        for c in CONDITIONS:
            for m, letter in enumerate("avt"):
                alone = letter if over(letter)[1].rows > FEW else ""
                shown, both = letter in c, "".join(sorted({*c, letter}, key="avt".index))
                read, coefficients = (letter, answer[letter]) if shown else (c, fit(c, letter) @ answer[letter])
                coefficients = coefficients / torch.cat([scale(each) for each in read])[:, None]
                offset = mean(alone, "")
                if not shown and over(both)[1].rows > FEW:  # the mean where both are known may be another
                    step = (mean(both, letter) - mean(letter, letter)) / scale(letter)
                    offset = offset + step @ answer[letter]
                # The mean of what is read, over the utterances that the regression was fitted to.
                known = letter if shown else both
                offset = offset - torch.cat([mean(known, each) for each in read]) @ coefficients
                rows = 1 + self._columns(read)[:-outputs]
                maps[CONDITIONS.index(c), rows, m] = coefficients
                maps[CONDITIONS.index(c), 0, m] = offset
        return maps

    def _places(self, modalities: str) -> dict[str, Tensor]:
        """Where the features of each modality, and the targets (""), are among :meth:`_columns` of ``modalities``."""
        dims = [self.feature_dims["avt".index(letter)] for letter in modalities]
        edges = torch.tensor([0, *dims, self.task.outputs]).cumsum(0).tolist()
        spans = [torch.arange(start, stop) for start, stop in pairwise(edges)]
        return dict(zip([*modalities, ""], spans, strict=True))
