"""IF-MMIN and MMIN as published, written anew in plain PyTorch, to be measured against.

The frames of absent modalities are multiplied by zero and encoded like others, text is convolved as a
picture, and the frozen teacher is run in every step, for IF-MMIN twice.

Widths are the published ones: the library's defaults.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.conditions import COMPLETE, MISSING_CONDITIONS, MODALITIES

EMBEDDING, CHANNELS, TEXT_DROPOUT = 128, 128, 0.5
WINDOWS = (3, 4, 5)
BLOCKS, BLOCK_DIMS = 5, (256, 128, 64)
HIDDEN_DIMS = (128, 128)
MOMENTS = 5


class Utterance(NamedTuple):
    """One utterance, or a batch of them with a leading dimension B.

    Attributes:
        frames: of audio, visual, text, each float [T_m, D_m]; in a batch zero behind the last frame.
        present: float [3], 1 where the modality may be seen, 0 where it is absent.
        label: int64 [].
    """

    frames: tuple[Tensor, Tensor, Tensor]
    present: Tensor
    label: Tensor

    def masked(self, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The frames of a batch, multiplied by the columns of ``mask`` [B, 3]."""
        audio, visual, text = (frames * mask[:, m, None, None] for m, frames in enumerate(self.frames))
        return audio, visual, text

    def to(self, device: torch.device) -> Utterance:
        """The same on ``device``."""
        audio, visual, text = (frames.to(device) for frames in self.frames)
        return Utterance((audio, visual, text), self.present.to(device), self.label.to(device))


def perceptron(widths: Sequence[int], activation: type[nn.Module]) -> nn.Sequential:
    """Linear layers with an activation after each but the last."""
    layers = [layer for narrow, wide in pairwise(widths) for layer in (nn.Linear(narrow, wide), activation())]
    return nn.Sequential(*layers[:-1])


class MaxLSTM(nn.Module):
    """LSTM, max over time, padding included."""

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(input_dim, EMBEDDING, batch_first=True)

    def forward(self, frames: Tensor) -> Tensor:
        """Encode [B, T, D] to [B, E]."""
        states: Tensor = self.rnn(frames)[0].transpose(1, 2)
        return F.max_pool1d(states, states.shape[2]).squeeze(2)


class PictureCNN(nn.Module):
    """TextCNN whose convolutions see the words as a picture of one channel."""

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(1, CHANNELS, (width, input_dim)) for width in WINDOWS)
        self.dropout = nn.Dropout(TEXT_DROPOUT)
        self.output = nn.Linear(CHANNELS * len(WINDOWS), EMBEDDING)

    def forward(self, frames: Tensor) -> Tensor:
        """Encode [B, T, D], T at least the widest window, to [B, E]."""
        maps = [convolution(frames[:, None]).relu().squeeze(3) for convolution in self.convolutions]
        pooled = [F.max_pool1d(windows, windows.shape[2]).squeeze(2) for windows in maps]
        embedding: Tensor = self.output(self.dropout(torch.cat(pooled, dim=1)))
        return embedding.relu()


class Encoders(nn.ModuleDict):
    """One encoder per modality; each reads every row."""

    def __init__(self, feature_dims: Sequence[int]) -> None:
        audio, visual, text = feature_dims
        super().__init__(dict(zip(MODALITIES, (MaxLSTM(audio), MaxLSTM(visual), PictureCNN(text)), strict=True)))

    def forward(self, frames: Sequence[Tensor]) -> list[Tensor]:
        """The embeddings [B, E] of audio, visual and text."""
        return [encoder(each) for encoder, each in zip(self.values(), frames, strict=True)]


class Cascade(nn.Module):
    """The autoencoders of MMIN (residual) or IF-MMIN (fed with the invariant features) and their head."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3 * EMBEDDING, *BLOCK_DIMS)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"encoder": perceptron(widths, nn.LeakyReLU), "decoder": perceptron(widths[::-1], nn.ReLU)})
            for _ in range(BLOCKS)
        )
        self.head = perceptron((widths[0],) * 3, nn.ReLU)

    def forward(self, h: Tensor, H: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """From h [B, 3E], and H [B, 3E] for IF-MMIN, to what is imagined [B, 3E] and the codes."""
        z, codes = h, []
        for block in self.blocks:
            assert isinstance(block, nn.ModuleDict)
            code = block["encoder"](z if H is None else z + H)
            change = block["decoder"](code)
            z = z + change if H is None else change
            codes.append(code)
        return self.head(z), torch.cat(codes, dim=1)


def invariance_encoder() -> nn.Sequential:
    """(Linear + LeakyReLU) twice."""
    return nn.Sequential(*(layer for _ in range(2) for layer in (nn.Linear(EMBEDDING, EMBEDDING), nn.LeakyReLU())))


def invariant_features(encoder: nn.Module, embeddings: Sequence[Tensor]) -> Tensor:
    """H [B, 3E] of the three embeddings."""
    return torch.cat([encoder(embedding) for embedding in embeddings], dim=1)


def classifier(input_dim: int, classes: int, dropout: float) -> nn.Sequential:
    """(Linear + ReLU + dropout) per hidden layer, and a linear layer."""
    layers: list[nn.Module] = []
    for narrow, wide in pairwise((input_dim, *HIDDEN_DIMS)):
        layers += [nn.Linear(narrow, wide), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(HIDDEN_DIMS[-1], classes))


def moment_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """CMD of two samples [B, E]: the distance of the means and of the central moments 2 to K."""
    centred_x, centred_y = x - x.mean(0), y - y.mean(0)
    moments = [(x.mean(0), y.mean(0))]
    moments += [((centred_x**k).mean(0), (centred_y**k).mean(0)) for k in range(2, MOMENTS + 1)]
    return torch.stack([(left - right).norm() for left, right in moments]).sum()


# Models.


class PlainModel(nn.Module, ABC):
    """One of the published models, made of the frame widths of audio, visual, text and the number of classes."""

    train_conditions: ClassVar[tuple[str, ...]] = MISSING_CONDITIONS
    val_conditions: ClassVar[tuple[str, ...]] = MISSING_CONDITIONS

    @abstractmethod
    def forward(self, batch: Utterance) -> Tensor:
        """Logits [B, classes] of what is present."""

    @abstractmethod
    def losses(self, batch: Utterance) -> dict[str, Tensor]:
        """The unweighted terms of the training loss."""

    def subnetworks(self) -> list[nn.Module]:
        """The networks whose gradients are clipped separately."""
        trained = [child for name, child in self.named_children() if "teacher" not in name]
        return [part for child in trained for part in (child.values() if isinstance(child, nn.ModuleDict) else [child])]


class PlainInvariantPretraining(PlainModel):
    """Stage 1 of IF-MMIN, on complete utterances."""

    train_conditions = val_conditions = (COMPLETE,)

    def __init__(self, feature_dims: Sequence[int], classes: int) -> None:
        super().__init__()
        self.encoders = Encoders(feature_dims)
        self.invariance = invariance_encoder()
        self.classifier = classifier(6 * EMBEDDING, classes, dropout=0.3)

    def classify(self, batch: Utterance) -> tuple[Tensor, Tensor]:
        """The logits and H."""
        embeddings = self.encoders(batch.frames)
        H = invariant_features(self.invariance, embeddings)
        return self.classifier(torch.cat([*embeddings, H], dim=1)), H

    def forward(self, batch: Utterance) -> Tensor:
        """See :class:`PlainModel`."""
        return self.classify(batch)[0]

    def losses(self, batch: Utterance) -> dict[str, Tensor]:
        """Cross entropy, and CMD over the pairs of modalities."""
        logits, H = self.classify(batch)
        pairs = [moment_discrepancy(x, y) for x, y in combinations(H.split(EMBEDDING, dim=1), 2)]
        return {"cls": F.cross_entropy(logits, batch.label), "cmd": torch.stack(pairs).mean()}


class PlainStage2(PlainModel):
    """What the stage-2 models share: a frozen teacher that is run in every step."""

    def __init__(self, feature_dims: Sequence[int], classes: int) -> None:
        super().__init__()
        self.encoders = Encoders(feature_dims)
        self.imagination = Cascade()
        self.classifier = classifier(BLOCKS * BLOCK_DIMS[-1], classes, dropout=0.5)
        self.teacher = Encoders(feature_dims).requires_grad_(False)

    def train(self, mode: bool = True) -> PlainStage2:
        """Leave the teacher in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def absent_part(self, batch: Utterance) -> Tensor:
        """The teacher's h [B, 3E] of the true frames where absent and of zero frames where present."""
        return torch.cat(self.teacher(batch.masked(1 - batch.present)), dim=1)


class PlainIFMMIN(PlainStage2):
    """IF-MMIN, stage 2."""

    def __init__(self, feature_dims: Sequence[int], classes: int) -> None:
        super().__init__(feature_dims, classes)
        self.invariance = invariance_encoder()
        self.teacher_invariance = invariance_encoder().requires_grad_(False)

    def imagine(self, batch: Utterance) -> tuple[Tensor, Tensor, Tensor]:
        """H', h' and the logits."""
        embeddings = self.encoders(batch.masked(batch.present))
        H = invariant_features(self.invariance, embeddings)
        imagined, codes = self.imagination(torch.cat(embeddings, dim=1), H)
        return H, imagined, self.classifier(codes)

    def forward(self, batch: Utterance) -> Tensor:
        """See :class:`PlainModel`."""
        return self.imagine(batch)[2]

    def losses(self, batch: Utterance) -> dict[str, Tensor]:
        """Cross entropy, imagination and invariance; the teacher runs twice."""
        H, imagined, logits = self.imagine(batch)
        with torch.no_grad():
            H_complete = invariant_features(self.teacher_invariance, self.teacher(batch.frames))
        return {
            "cls": F.cross_entropy(logits, batch.label),
            "img": F.mse_loss(imagined, self.absent_part(batch)),
            "inv": F.mse_loss(H, H_complete),
        }


class PlainMMIN(PlainStage2):
    """MMIN, stage 2, with a cascade for each direction."""

    def __init__(self, feature_dims: Sequence[int], classes: int) -> None:
        super().__init__(feature_dims, classes)
        self.cycle = Cascade()

    def imagine(self, batch: Utterance) -> tuple[Tensor, Tensor, Tensor]:
        """h, h' and the logits."""
        h = torch.cat(self.encoders(batch.masked(batch.present)), dim=1)
        imagined, codes = self.imagination(h)
        return h, imagined, self.classifier(codes)

    def forward(self, batch: Utterance) -> Tensor:
        """See :class:`PlainModel`."""
        return self.imagine(batch)[2]

    def losses(self, batch: Utterance) -> dict[str, Tensor]:
        """Cross entropy, imagination and cycle."""
        h, imagined, logits = self.imagine(batch)
        return {
            "cls": F.cross_entropy(logits, batch.label),
            "img": F.mse_loss(imagined, self.absent_part(batch)),
            "cycle": F.mse_loss(self.cycle(imagined)[0], h.detach()),
        }
