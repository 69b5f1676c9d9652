"""The published training loop, written anew in plain PyTorch, to be measured against.

It does what the published code of MMIN and IF-MMIN does, at its own cost: utterances are loaded,
normalised and masked one at a time, batches are drawn in random order and padded to their longest
utterance, all three modalities of every row are encoded, whatever is absent, and validation makes one
pass per condition that encodes everything again. The models have habits of their own:
:mod:`benchmarks.published.models`, :mod:`benchmarks.published.cm_arr`, :mod:`benchmarks.published.mctn`.

All in float32, as published, with features in memory.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from benchmarks.published.forms import plain_model
from benchmarks.published.models import Utterance
from datamodules.base import EmotionDataModule
from datamodules.conditions import present_under
from ifmmin.base import MissingModalityModule


class UtteranceItems(Dataset[Utterance]):
    """The utterances of a split, each with a condition drawn anew whenever it is read.

    Args:
        data: after its ``setup``; frames are normalised if it has training statistics.
        split: ``train`` or ``val``.
        conditions: to draw from, uniformly.
    """

    def __init__(self, data: EmotionDataModule, split: str, conditions: Sequence[str]) -> None:
        self.corpus = data.corpus
        self.labels = data.labels
        self.statistics = data.statistics
        self.rows = data.indices(split)
        self.conditions = conditions

    def __len__(self) -> int:
        """The number of utterances."""
        return len(self.rows)

    def __getitem__(self, position: int) -> Utterance:
        """Load, normalise and mask one utterance."""
        row = self.rows[position]
        loaded = []
        for stored, statistics in zip(self.corpus.frames, self.statistics, strict=True):
            frames = stored.utterance(int(row))
            loaded.append(frames if statistics is None else (frames - statistics.mean) / statistics.std)
        present = torch.tensor(present_under(random.choice(self.conditions)), dtype=torch.float32)
        return Utterance((loaded[0], loaded[1], loaded[2]), present, self.labels[row])


def collate(items: Sequence[Utterance]) -> Utterance:
    """Pad every modality to its longest in this batch."""
    audio, visual, text = (pad_sequence([item.frames[m] for item in items], batch_first=True) for m in range(3))
    return Utterance(
        (audio, visual, text),
        torch.stack([item.present for item in items]),
        torch.stack([item.label for item in items]),
    )


class PlainLoop:
    """Trains and validates a plain model, in float32, without Lightning.

    Args:
        module: whose weights and settings are taken over.
        data: after its ``setup``.
        device: where the model runs.
    """

    def __init__(self, module: MissingModalityModule, data: EmotionDataModule, device: torch.device) -> None:
        self.model = plain_model(module).to(device)
        self.device = device
        self.loss_weights, self.clip_norm = module.loss_weights, module.settings.clip_norm
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        recipe = module.settings
        self.optimizer = torch.optim.Adam(trained, lr=recipe.learning_rate, betas=(recipe.beta1, 0.999))

        def loader(split: str, *conditions: str) -> DataLoader[Utterance]:
            items = UtteranceItems(data, split, conditions)
            return DataLoader(items, module.settings.batch_size, shuffle=split == "train", collate_fn=collate)

        self.train_loader = loader("train", *self.model.train_conditions)
        self.val_loaders = [loader("val", condition) for condition in self.model.val_conditions]
        self.train_rows, val_rows = len(data.indices("train")), len(data.indices("val"))
        self.val_rows = val_rows * len(self.val_loaders)

    def backward(self, batch: Utterance) -> dict[str, Tensor]:
        """Compute the losses and the gradients of their weighted sum."""
        losses = self.model.losses(batch)
        self.optimizer.zero_grad()
        torch.stack([self.loss_weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum().backward()
        return losses

    def clip(self) -> None:
        """Clip the gradients of each sub-network."""
        for network in self.model.subnetworks():
            if next(network.parameters(), None) is None:  # a loss
                continue
            nn.utils.clip_grad_norm_(network.parameters(), self.clip_norm)

    def train(self, share: float = 1.0) -> float:
        """Train an epoch, or the first batches of it.

        Args:
            share: of the epoch's batches, in (0, 1].

        Returns:
            the share of the epoch's utterances in these batches.
        """
        self.model.train()
        seen = 0
        for batch in islice(self.train_loader, math.ceil(share * len(self.train_loader))):
            self.backward(batch.to(self.device))
            self.clip()
            self.optimizer.step()
            seen += len(batch.label)
        return seen / self.train_rows

    @torch.no_grad()
    def validate(self, share: float = 1.0) -> float:
        """Make one pass per condition; arguments and result as of :meth:`train`."""
        self.model.eval()
        seen = 0
        for loader in self.val_loaders:
            for batch in islice(loader, math.ceil(share * len(loader))):
                predicted = self.model(batch.to(self.device)).argmax(dim=1).tolist()
                seen += len(predicted)
        return seen / self.val_rows
