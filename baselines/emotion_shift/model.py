"""The emotion-shift component around any other model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.emotion_shift.networks import Chains, EmotionMemory
from datamodules.batches.batch import Batch
from datamodules.conditions import CONDITION_TABLE, CONDITIONS, MODALITIES, per_modality
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, NOT_NEGATIVE, WIDTH, declared_options
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.checkpoints.parts import load_part
from ifmmin.discovery import check_name, find_model, model_names
from ifmmin.optimization import Recipe
from ifmmin.pretraining.stage1 import Stage1Module
from ifmmin.pretraining.stage2 import Stage2Module

if TYPE_CHECKING:
    from typing_extensions import Self

AROUND = "ModalityDropout"
"""The model that is wrapped if no other is named."""

NEGATIVE = frozenset(
    {
        *("anger", "angry", "contempt", "disgust", "disgusted", "fear", "fearful"),
        *("frustrated", "frustration", "negative", "sad", "sadness"),
    }
)
"""Names of the classes of the negative group; every other class is in the other group."""


class Carried(NamedTuple):
    """What the component computes of a batch.

    Attributes:
        outputs: [B, O].
        shift: logits of (shift, no shift) [B, 2] against the speaker's previous turn.
        chains: of the rows.
    """

    outputs: Tensor
    shift: Tensor
    chains: Chains


class EmotionShift(Stage2Module):
    r"""Emotion shift around any other model: it carries a speaker's emotion from turn to turn.

    Bansal, Agarwal, Joshi, Modi: "Shapes of emotions: multimodal emotion recognition in conversations via emotion
    shifts", MMMPIE workshop at COLING 2022.

    The wrapped model is trained first, as a run of its own with its own recipe, stage 1 and training data, and then
    frozen. Of each turn the component reads u = [the mean of h_m over what is present; the wrapped model's outputs o],
    without h where that model shows no :meth:`~ifmmin.base.MissingModalityModule.modality_embeddings`. A siamese head
    compares u with u', that of the speaker's own previous turn (0 before the first); a GRU over the turns so far gives
    the party state s; and a gated cell carries the emotion e, which is held while nothing shifts and forgotten when it
    does:

    .. math::
        P(\text{shift}) &= \mathrm{softmax}(V [u'; u; |u - u'|])_0, \quad r = 1 - P(\text{shift}) \\
        c &= \tanh(W s + U (r e')), \quad e = r e' + (1 - r) c, \quad ŷ = o + A [u; e]

    L = L_cls + λ L_shift: the task's loss, and cross entropy of the shift between two turns of one speaker, that is
    whether exactly one of their labels is of a negative class. Labels of earlier turns enter there alone, as targets in
    training; no label is ever an input, and later turns never change an answer.

    Which turns: those of one speaker in one dialogue (:attr:`~datamodules.batches.batch.Batch.turn`), in training each
    under its own mask, in evaluation all under one condition; a turn that lacks a modality of the condition, in a
    corpus with gaps, is left out of the chain there. Rows of a board with this model are marked "reads earlier turns":
    other rows answer without memory.

    Our choices: a frozen model of any kind instead of the paper's Multilogue-Net (global, party and emotion states of
    two directions, attention between modalities); the speaker's own previous turn, where the code compares with that of
    anyone, and no pair of a first turn, where it compares with class 0; no class weights; λ = 1, the code's; group
    "negative" by the names of the classes (``negative`` names them), by sign in a regression; the correction A [u; e]
    of the wrapped answer; widths 64 and 32 for the paper's 150 and 100; dropout 0.1, the code's; 10 epochs of Adam.

    Differs from the published code (Exploration-Lab/Shapes-of-Emotion, CC BY-NC 4.0, of which nothing is taken):
    forward only. There the backward direction is dead, since its P(shift) is set to 0: r = 1, and e keeps its start, 0.
    Its attention sees padded turns, so that an answer depends on the other dialogues of a batch; its last epoch counts
    as the best.

    What it tells: how much of an answer is memory. With labels that are drawn alike for every turn it gains nothing,
    as the built-in corpus draws them, for there is nothing to carry; with ``--data.stay 0.85`` there is.

    What it costs: the wrapped model's training, then epochs without its gradients, but with a loop over the turns of
    the longest chain.

    Published figures: of conversations with both speakers' turns, and on other features; nothing to compare with.

    Args:
        around: the model that is wrapped, by name. Its options go into ``pretraining``, one by one on the command line
            (``--model.pretraining.learning_rate 1e-3``); ``pretrained`` is a checkpoint of it.
        negative: names of the classes of the negative group; by default those of anger, contempt, disgust, fear,
            frustration and sadness. Where no class is in it, no turn shifts: name some.
        party_dim: width of s.
        emotion_dim: width of e.
        dropout: of [u; e].
        lambda_shift: λ, weight of L_shift.
        **kwargs: of :class:`~ifmmin.pretraining.stage2.Stage2Module`.

    Raises:
        InputError: ``around`` names no model that can be wrapped, ``negative`` names no class, or an option is out of
            range.
    """

    card = ModelCard(
        "Emotion shift",
        "carries a speaker's emotion from turn to turn, around any other model: reads earlier turns",
        "Bansal et al., MMMPIE at COLING",
        2022,
        "https://arxiv.org/abs/2112.01938",
        "https://github.com/Exploration-Lab/Shapes-of-Emotion",
        "fusion",
        "the component of the public code, forward only, around other models",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, constant_epochs=5, decay_epochs=5)
    needs = DataNeeds(hidden_frames=False, turns=True)

    def __init__(
        self,
        *,
        around: str = AROUND,
        negative: list[str] | None = None,
        party_dim: Annotated[int, WIDTH] = 64,
        emotion_dim: Annotated[int, WIDTH] = 32,
        dropout: Annotated[float, BELOW_ONE] = 0.1,
        lambda_shift: Annotated[float, NOT_NEGATIVE] = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.around = self.stage1_module().requires_grad_(False).eval()
        self.needs = DataNeeds(hidden_frames=False, steps=self.around.needs.steps, turns=True)
        width = self.task.outputs + self._embedding_width()
        self.memory = EmotionMemory(width, party_dim, emotion_dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width + emotion_dim, self.task.outputs)
        self.loss_weights = {"shift": lambda_shift}
        self.negative: Tensor
        self.register_buffer("negative", self._negative_classes(negative), persistent=False)
        # By the number of a pattern of presence, audio 4, visual 2, text 1.
        known = {4 * a + 2 * v + t: self.answers(CONDITIONS[i]) for i, (a, v, t) in enumerate(CONDITION_TABLE.tolist())}
        self.answered: Tensor
        self.register_buffer("answered", torch.tensor([known.get(i, False) for i in range(8)]), persistent=False)

    # What is wrapped.

    @classmethod
    def stage1_of(cls, options: Mapping[str, Any]) -> type[MissingModalityModule]:
        """Find the model that is wrapped.

        Raises:
            InputError: it is unknown, a class path, a stage 1, or this model itself.
        """
        name = str(options.get("around", AROUND))
        shown = f"around {printable(name, 60)}"
        if "." in name:  # a checkpoint has this name, and must not import whatever it likes
            raise InputError(f"{shown}: give the name of a model, not a class path; an entry point gives yours a name.")
        check_name(name, model_names(), "around:", or_path=False)
        found = find_model(name)
        if issubclass(found, EmotionShift):
            raise InputError(f"{shown}: it cannot be wrapped in itself; name another model.")
        if issubclass(found, Stage1Module):
            raise InputError(f"{shown}: a stage 1, trained for another model; name a model that is trained to answer.")
        return found

    @property
    def remarks(self) -> list[str]:
        """See :attr:`~ifmmin.base.MissingModalityModule.remarks`; what is wrapped comes first."""
        return [f"around {type(self.around).__name__}", *super().remarks]

    def stage1_module(self) -> MissingModalityModule:
        """Make a fresh model to wrap."""
        common = {name: self.hparams[name] for name in ("corpus", "monitor", "task") if name in self.hparams}
        module = self.stage1_class(
            feature_dims=self.feature_dims, class_names=self.class_names, **(common | self.pretraining)
        )
        module.log_prefix = "around/"
        return module

    def load_stage1(self, parts: Mapping[str, Mapping[str, Tensor]], source: str = "stage 1") -> None:
        """See :meth:`~ifmmin.pretraining.stage2.Stage2Module.load_stage1`; all parts of the wrapped model."""
        state = {
            f"{part}.{name}" if name else part: value
            for part, values in parts.items()
            for name, value in values.items()
        }
        load_part(self.around, state, source)
        self.taught = True

    def _shared_options(self) -> list[str]:
        """None: the wrapped model has options of its own."""
        return []

    def _check_trained_options(self, options: Mapping[str, Any]) -> None:
        """Refuse a ``pretrained`` model of other options than ours, but for those of the optimiser and of stage 1."""
        free = declared_options(MissingModalityModule).keys() | {"pretrained", "pretraining"}
        for name, ours in self.around.hparams.items():
            if name not in free and name in options and options[name] != ours:
                shown = printable(f"{name} {options[name]}", 60)
                raise InputError(
                    f"{self.pretrained}: {type(self.around).__name__} has {shown}; give that as pretraining, "
                    f"--model.pretraining.{name}."
                )

    def _embedding_width(self) -> int:
        """E of the wrapped model's modality embeddings, 0 where it shows none: it embeds one utterance of zeros."""
        steps = self.around.needs.steps or 4
        batch = Batch(
            frames=per_modality(torch.zeros(1, steps, dim) for dim in self.feature_dims),
            lengths=torch.full((1, len(MODALITIES)), steps),
            index=torch.zeros(1, dtype=torch.int64),
            labels=torch.zeros(1, dtype=torch.int64),
            utterances=[""],
            row=torch.zeros(1, dtype=torch.int64),
            present=torch.ones(1, len(MODALITIES), dtype=torch.bool),
        )
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            h = self.around.modality_embeddings(batch)
        return 0 if h is None else h.shape[2]

    def _negative_classes(self, names: list[str] | None) -> Tensor:
        """Bool [C], the classes of the negative group; empty in a regression.

        Raises:
            InputError: there is no such class.
        """
        if self.task.name != "classification":
            return torch.zeros(0, dtype=torch.bool)
        for name in names or ():
            check_name(name, self.class_names, "negative:", or_path=False)
        wanted = NEGATIVE if names is None else frozenset(names)
        return torch.tensor([(name if names else name.lower()) in wanted for name in self.class_names])

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the component; the wrapped model stays in evaluation."""
        super().train(mode)
        self.around.eval()
        return self

    def answers(self, condition: str) -> bool:
        """Whether the wrapped model answers under ``condition``."""
        return self.around.answers(condition)

    def _readable(self, batch: Batch) -> Tensor:
        """Bool [B]: the rows that the wrapped model answers."""
        return self.answered[(batch.present * batch.row.new_tensor([4, 2, 1])).sum(dim=1)]

    # The component.

    @torch.no_grad()
    def read(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The wrapped model's outputs o [B, O], and u [B, D]; 0 of a row that it does not answer."""
        outputs, h = self.around(batch), self.around.modality_embeddings(batch)
        u = outputs
        if h is not None:
            shown = batch.present[..., None]
            u = torch.cat([h.where(shown, 0).sum(dim=1) / shown.sum(dim=1), outputs.to(h.dtype)], dim=1)
        return outputs, u.where(self._readable(batch)[:, None], 0)

    def carry(self, batch: Batch) -> Carried:
        """Run the wrapped model, then the component over the turns of each chain."""
        outputs, u = self.read(batch)
        chains = Chains.of(batch)
        states, shift = self.memory(chains.gather(u))
        correction = self.head(self.dropout(torch.cat([u, chains.spread(states)], dim=1)))
        return Carried(outputs + correction, chains.spread(shift), chains)

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.carry(batch).outputs

    def shift_targets(self, batch: Batch, chains: Chains) -> Tensor:
        """Whether a row's emotion shifts from the speaker's previous turn: 1 or 0, -1 where that is unknown; [B]."""
        label = batch.label
        if len(self.negative):
            group, known = self.negative[label.clamp(min=0)].long(), label >= 0
        else:
            group, known = (label < 0).long(), ~label.isnan()
        group = group.where(known, -1)
        before = chains.previous(group, fill=-1)
        return (group != before).long().where((group >= 0) & (before >= 0), -1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls and L_shift."""
        out, readable = self.carry(batch), self._readable(batch)
        target = self.shift_targets(batch, out.chains).where(readable, -1)
        known = target >= 0
        shift = 0.0 * out.shift.sum()
        if bool(known.any()):
            shift = F.cross_entropy(out.shift[known], 1 - target[known])  # logit 0 is that of a shift
        return {"cls": self.loss_over(readable, out.outputs, batch.target), "shift": shift}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Note a corpus that does not tell turns: then there is no memory to train."""
        super().on_train_batch_start(batch, batch_idx)
        if batch.turn is None and self.global_step == 0:
            logging.getLogger("ifmmin").warning("EmotionShift: these data tell no turns, so each utterance is alone")

    def row_values(self, batch: Batch) -> dict[str, Tensor]:
        """``shift``: P(shift) against the speaker's previous turn; NaN for the first."""
        out = self.carry(batch)
        probability = out.shift.softmax(dim=1)[:, 0]
        return {"shift": probability.masked_fill(out.chains.step == 0, torch.nan)}
