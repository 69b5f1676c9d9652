"""MCTN: joint representations by cyclic translation between modalities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.mctn.networks import AttentionDecoder, TranslationEncoder, decode
from datamodules.batches.batch import Batch
from datamodules.batches.pooling import pool_steps
from datamodules.batches.visible import Visible, visible
from datamodules.conditions import CONDITION_TABLE, CONDITIONS, MODALITIES
from datamodules.needs import DataNeeds
from datamodules.ranges import NOT_NEGATIVE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.encoders import LSTMEncoder
from ifmmin.nn.initialisation import initialise
from ifmmin.nn.kernels.linear_error import linear_errors
from ifmmin.optimization import Recipe


def in_rows(layer: Callable[[Tensor], Tensor], values: Tensor, rows: Tensor) -> Tensor:
    """Apply a layer to some rows of values [R, ...], those where bool [R] is True; the others become 0."""
    picked = rows.nonzero()[:, 0]
    part: Tensor = layer(values.index_select(0, picked))
    return part.new_zeros(len(rows), *part.shape[1:]).index_copy(0, picked, part)


class Patience(EarlyStopping):
    """Early stopping that an interruption does not change.

    It looks before the checkpoint of the epoch is written, and a run that had stopped already is not
    trained on when it is resumed.

    Args:
        monitor: logged name of a score.
        patience: validations without a better one after which training stops.
        mode: direction of "better".
    """

    def __init__(self, monitor: str, patience: int, mode: Literal["min", "max"] = "max") -> None:
        super().__init__(monitor, mode=mode, patience=patience, check_on_train_epoch_end=False)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop at once where the resumed run had stopped."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class MCTN(MissingModalityModule):
    """MCTN, the multimodal cyclic translation network.

    Pham, Liang, Manzini, Morency, Póczos: "Found in translation: learning robust joint
    representations by cyclic translations between modalities", AAAI 2019.

    A source modality x_S is encoded by E (BiLSTM, directions summed) and translated to a target
    modality by D (LSTM with attention): x̂_T = D(E(x_S)). The same E and D translate back:
    x̂_S = D(E(x̂_T)). A second sequence-to-sequence model, without cycle, goes from the encoding E(x_S)
    to the third modality. Both encodings are then about all three modalities, though only
    the source is ever read: the class comes from the second encoding alone, by an LSTM, attention
    over its steps and a linear layer. Nothing is decoded to predict.

    L = L_cls + 0.1 MSE(x̂_T, x_T) + 0.1 MSE(x̂_S, x_S) + 0.1 MSE(x̂_third, x_third); hidden 32,
    20 steps, Adam 1e-4, batch 32, early stopping with patience 20.

    Our choices, where the paper has one source and aligned words of equal width:

    - One model answers all conditions (``source="any"``). Each modality's frames are pooled to 20 steps
      (:func:`pool_steps`) and projected linearly to ``width``; as both are linear, the order does not
      matter. x_S is the mean of the available modalities' projected steps. The absent ones are the
      targets: in the cycle audio, visual, text, audio the one that follows an available one is
      translated to first, and the other, if there are two, on the second level (from text: audio, then
      visual, as in the public code). With a single one the second level has no target; the head
      reads the second encoding all the same. Conditions are drawn as for the other models.
    - What is regressed are the pooled features as the corpus gives them, by an output layer per modality
      on each decoder, not their projections: a projection that is trained along could make the error
      vanish by vanishing. x̂_T enters E through the target's projection. MSE(x̂_S, x_S) is the mean
      over the available modalities. Each MSE is the mean over steps and features, then over all
      rows of the batch, where a row without that target counts as 0.
    - In a corpus with gaps a lost modality is no target, and the other one keeps its level; each MSE is over the rows
      whose target at that level is not lost. With a fixed source only utterances that have it train.
    - ``source="a"``, ``"v"`` or ``"t"`` is the paper's setting: one source for every utterance, the other two
      as targets whatever the training mask. Only the condition that consists of the source
      is answered; others are reported as "–", and ``forward`` gives NaN where the source is absent.
    - At most 60 epochs, some 8,000 steps, as are the public code's 200 on some 1,300 utterances of MOSI.
    - D is fed its attention's context alone, as in the public code: with no output fed back, training and
      test decode alike.

    Differs from the public code: the attention is additive in W s + U h (there linear in [c; h]); the
    decoder's LSTM has a forget gate of its own (there the input gate is used twice) and its output is not
    squashed by tanh; cross entropy, not absolute error; pooling, not cutting and zero padding, brings
    utterances to 20 steps; early stopping watches the metric that selects the best epoch, not the
    loss; gradients are clipped; no L2 penalty on the last layer.

    Args:
        source: ``any``, or the one modality (``a``, ``v``, ``t``) that is read.
        steps: S, what every sequence is pooled to.
        width: of the common space that the modalities are projected to.
        hidden_dim: H, of the encoders, the decoders and the head.
        lambda_translation: weight of MSE(x̂_T, x_T).
        lambda_cycle: weight of MSE(x̂_S, x_S).
        lambda_second: weight of MSE(x̂_third, x_third).
        patience: epochs without a better validation score after which training stops.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.
    """

    card = ModelCard(
        "MCTN",
        "translates what is there to what is missing, and back",
        "Pham et al., AAAI",
        2019,
        "https://arxiv.org/abs/1812.07809",
        "https://github.com/hainow/MCTN",
        "translation",
        seed=True,
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-4, batch_size=32, constant_epochs=60, decay_epochs=0)

    def __init__(
        self,
        *,
        source: Literal["any", "a", "v", "t"] = "any",
        steps: Annotated[int, WIDTH] = 20,
        width: Annotated[int, WIDTH] = 128,
        hidden_dim: Annotated[int, WIDTH] = 32,
        lambda_translation: Annotated[float, NOT_NEGATIVE] = 0.1,
        lambda_cycle: Annotated[float, NOT_NEGATIVE] = 0.1,
        lambda_second: Annotated[float, NOT_NEGATIVE] = 0.1,
        patience: Annotated[int, NOT_NEGATIVE] = 20,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.steps = steps
        self.needs = DataNeeds(steps=steps)
        self.patience = patience
        self.projections = nn.ModuleDict(
            {name: nn.Linear(dim, width) for name, dim in zip(MODALITIES, self.feature_dims, strict=True)}
        )
        self.encoder = TranslationEncoder(width, hidden_dim)
        self.decoder = AttentionDecoder(hidden_dim, self.feature_dims)
        self.second_encoder = TranslationEncoder(hidden_dim, hidden_dim)
        self.second_decoder = AttentionDecoder(hidden_dim, self.feature_dims)
        self.pooling = LSTMEncoder(hidden_dim, hidden_dim, pooling="attention")
        self.classifier = nn.Linear(hidden_dim, self.task.outputs)
        self.loss_weights = {"translation": lambda_translation, "cycle": lambda_cycle, "second": lambda_second}
        initialise(self)

    def answers(self, condition: str) -> bool:
        """Every condition, or with a fixed source the one in which nothing but it is available."""
        return self.source in ("any", condition)

    def configure_callbacks(self) -> Sequence[Callback]:
        """Early stopping, unless the trainer has its own."""
        if self.trainer.early_stopping_callbacks:
            return []
        return [Patience(self.monitor_key, self.patience, self.monitor_mode)]

    def readable(self, present: Tensor) -> Tensor:
        """Bool [B, 3]: what is read of the modalities that are ``present`` [B, 3]."""
        if self.source == "any":
            return present
        return present & CONDITION_TABLE[CONDITIONS.index(self.source)].to(present.device)

    def pooled(self, seen: Visible) -> Tensor:
        """[K, S, D_m]: the steps of each visible sequence of a modality."""
        return pool_steps(seen.frames, seen.lengths, self.steps)

    def source_steps(self, projected: Sequence[Tensor], present: Tensor) -> Tensor:
        """Average the projected steps of what is present: x_S [B, S, width].

        Args:
            projected: per modality, its steps [B, S, width], 0 where it is not ``present``.
            present: bool [B, 3].
        """
        return sum(projected[1:], projected[0]) / present.sum(dim=1).clamp(min=1)[:, None, None]

    def true_steps(self, batch: Batch) -> list[Tensor]:
        """Steps [N, S, D_m] of each complete utterance, per modality; 0 where the corpus has none."""
        unmasked = batch.unmasked()
        seen = [visible(unmasked, modality) for modality in range(len(MODALITIES))]
        return [each.spread(self.pooled(each)) for each in seen]

    @staticmethod
    def targets(batch: Batch) -> tuple[Tensor, Tensor]:
        """Bool [B, 3] twice: the absent modality that is translated to first, and the one that is second."""
        absent = batch.available[batch.row] & ~batch.present & batch.present.any(dim=1, keepdim=True)
        follows = batch.present.roll(1, dims=1)  # whether the modality before it in the cycle is present
        return absent & follows, absent & ~follows

    @staticmethod
    def counted(batch: Batch) -> tuple[int, int]:
        """Number of rows with a source whose first, and whose second target is not lost: B each without gaps."""
        if bool(batch.available.all()):
            return len(batch), len(batch)
        source, lost = batch.present.any(dim=1), ~batch.available[batch.row]
        follows = batch.present.roll(1, dims=1)
        levels = (lost & follows).any(dim=1), (lost & ~follows).any(dim=1)
        first, second = (int((source & ~level).sum()) for level in levels)
        return first, second

    def embed(self, decoder: AttentionDecoder, states: Tensor, wanted: Tensor) -> Tensor:
        """Read the one wanted modality off decoded states and project it as true steps are: [R, S, width].

        Args:
            decoder: whose output layers are used.
            states: [R, S, H].
            wanted: bool [R, 3], one True a row.
        """
        embedded = []
        parts = zip(decoder.outputs, self.projections.values(), wanted.unbind(dim=1), strict=True)
        for output, projection, rows in parts:
            assert isinstance(output, nn.Linear) and isinstance(projection, nn.Linear)
            # Both layers are linear: their product is much narrower than the features between them.
            weight, bias = projection.weight @ output.weight, projection(output.bias)
            embedded.append(in_rows(partial(F.linear, weight=weight, bias=bias), states, rows))
        return sum(embedded[1:], embedded[0])

    @staticmethod
    def squared_error(
        decoder: AttentionDecoder,
        states: Tensor,
        rows: Tensor,
        wanted: Tensor,
        true: Sequence[Tensor],
        row: Tensor,
        counted: int,
    ) -> Tensor:
        """Mean squared error over a batch; a row that wants several modalities has their mean, one that wants none 0.

        Args:
            decoder: whose output layers read features off ``states``.
            states: [R, S, H], decoded for some rows of the batch.
            rows: int64 [R], which.
            wanted: bool [B, 3], what each row of the batch is compared in.
            true: per modality, the true steps [N, S, D_m] of each utterance.
            row: int64 [B], the utterance of each row.
            counted: number of rows that the mean is over.
        """
        shares = wanted / wanted.sum(dim=1, keepdim=True).clamp(min=1)
        total = states.new_zeros(())
        for modality, (output, steps) in enumerate(zip(decoder.outputs, true, strict=True)):
            picked = wanted[rows, modality].nonzero()[:, 0]
            chosen = rows[picked]
            assert isinstance(output, nn.Linear)
            errors = linear_errors(output, states.index_select(0, picked), steps.index_select(0, row[chosen]))
            total = total + (errors * shares[chosen, modality]).sum()
        return total / max(1, counted)

    def classify(self, second: Tensor) -> Tensor:
        """Outputs [B, O] of the second encoding [B, S, H]."""
        lengths = torch.full((len(second),), self.steps, device=second.device)
        outputs: Tensor = self.classifier(self.pooling(second, lengths))
        return outputs

    def projected(self, batch: Batch) -> list[Tensor]:
        """Projected steps [B, S, width] of each modality, 0 where it is absent."""
        steps = []
        for modality, projection in enumerate(self.projections.values()):
            seen = visible(batch, modality)
            steps.append(seen.spread(projection(self.pooled(seen))))
        return steps

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Mean over the steps of what E reads of each modality, [B, 3, width]; 0 where it is absent."""
        return torch.stack([steps.mean(dim=1) for steps in self.projected(batch)], dim=1)

    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean over steps of the translations x̂, projected as E would read them, and of the true steps."""
        batch = replace(batch, present=self.readable(batch.present))
        encoded = self.encoder(self.source_steps(self.projected(batch), batch.present))
        decoders = self.decoder, self.second_decoder
        states = decode(decoders, (encoded, self.second_encoder(encoded)))
        parts = [
            self.embed(decoder, each, wanted).mean(dim=1)[:, None] * wanted[..., None]
            for decoder, each, wanted in zip(decoders, states, self.targets(batch), strict=True)
        ]
        return parts[0] + parts[1], self.modality_embeddings(batch.unmasked())[batch.row].detach()

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]; NaN in rows where a fixed source is absent."""
        batch = replace(batch, present=self.readable(batch.present))
        source = self.source_steps(self.projected(batch), batch.present)
        outputs = self.classify(self.second_encoder(self.encoder(source)))
        return outputs.masked_fill(~batch.present.any(dim=1, keepdim=True), torch.nan)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the task's loss and the three mean squared errors."""
        if self.source != "any":
            # The paper's setting: the training mask plays no part, all but the source is a target.
            batch = replace(batch, present=self.readable(batch.available[batch.row]))
        true, row = self.true_steps(batch), batch.row
        first, second = self.targets(batch)
        counted, counted_second = self.counted(batch)
        present = batch.present
        parts = zip(self.projections.values(), true, present.unbind(dim=1), strict=True)
        shown = [in_rows(projection, steps.index_select(0, row), rows) for projection, steps, rows in parts]
        encoded = self.encoder(self.source_steps(shown, present))  # E(x_S)
        encoded_second = self.second_encoder(encoded)
        rows, rows_second = (wanted.any(dim=1).nonzero()[:, 0] for wanted in (first, second))
        sources = encoded.index_select(0, rows), encoded_second.index_select(0, rows_second)
        translated, third = decode((self.decoder, self.second_decoder), sources)  # x̂_T = D(E(x_S)), and x̂_third
        back = self.decoder(self.encoder(self.embed(self.decoder, translated, first[rows])))  # x̂_S = D(E(x̂_T))
        cycled = present & first.any(dim=1, keepdim=True)
        return {
            "cls": self.loss_over(present.any(dim=1), self.classify(encoded_second), batch.target),
            "translation": self.squared_error(self.decoder, translated, rows, first, true, row, counted),
            "cycle": self.squared_error(self.decoder, back, rows, cycled, true, row, counted),
            "second": self.squared_error(self.second_decoder, third, rows_second, second, true, row, counted_second),
        }
