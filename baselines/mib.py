"""MIB: information bottlenecks of each modality, of their fusion, or of both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, NOT_NEGATIVE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.encoders import ModalityEncoders, SequenceEncoder
from ifmmin.nn.fusion import tensor_product
from ifmmin.nn.gaussians import Gaussian, GaussianHead, kl_to_standard_normal, known_kl, product_of_experts
from ifmmin.optimization import Recipe

Variant = Literal["early", "late", "complete"]
"""What is compressed: the fusion, each modality, or both."""

FusionForm = Literal["poe", "concat", "tensor"]


class Bottleneck(nn.Module):
    """Encoder of a code z: linear, ReLU, and a Gaussian of it.

    Args:
        dim: E, width of the input and of z.
        hidden_dim: width between.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, hidden_dim)
        self.code = GaussianHead(hidden_dim, dim)

    def forward(self, features: Tensor) -> Gaussian:
        """Encode [..., E] to a Gaussian [..., E]."""
        found: Gaussian = self.code(self.hidden(features).relu())
        return found


class Concatenation(nn.Module):
    """Linear and ReLU of all three embeddings.

    Args:
        dim: E.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(len(MODALITIES) * dim, dim)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Fuse [B, 3, E], zeros where a modality is absent, to [B, E]."""
        fused: Tensor = self.linear(embeddings.flatten(1)).relu()
        return fused


class TensorFusion(nn.Module):
    """Three layers, each linear and tanh, of the tensor product of all three embeddings with a 1 before each.

    Args:
        dim: E; the first layer reads (E + 1)³ products.
        hidden_dim: width between.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.first = nn.Linear((dim + 1) ** len(MODALITIES), hidden_dim)
        self.second = nn.Linear(hidden_dim, hidden_dim)
        self.last = nn.Linear(hidden_dim, dim)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Fuse [B, 3, E], zeros where a modality is absent, to [B, E]."""
        features = tensor_product(embeddings.unbind(dim=1))
        for layer in (self.first, self.second, self.last):
            features = layer(features).tanh()
        return features


class Fused(NamedTuple):
    """Everything MIB computes of what was read of each modality.

    Attributes:
        drawn: z_m [B, 3, E], or x_m where only the fusion is compressed; zeros where a modality is absent.
        code: z as a Gaussian [B, E]; None where z is not one.
        outputs: [B, O], of z.
    """

    drawn: Tensor
    code: Gaussian | None
    outputs: Tensor


class MIB(MissingModalityModule):
    r"""Compress what is read of each modality, or of all, to what its label needs.

    Mai, Zeng, Hu: "Multimodal information bottleneck: learning minimal sufficient unimodal and multimodal
    representations", IEEE Transactions on Multimedia, 2022.

    A code z ~ N(μ, σ²) of an embedding is trained to tell the label and, by its divergence from a standard normal, as
    little else as possible. Missing modalities need no imagination: with a product of experts (``poe``), whose
    densities are multiplied, an absent expert is just not there, and z is wider for it. With x_m the embedding of
    modality m, and l(z) = L_task(linear z) + β KL(z),

    .. math::
        μ_m, σ_m = \mathrm{encoder}_m(x_m), \quad z_m = μ_m + σ_m ε, \quad KL(z) = \tfrac12 \mathrm{mean}(μ^2 + σ^2
        - \ln σ^2 - 1)

    - ``early``: L = l(z) + L_task(z), z a code of fusion(x).
    - ``late``: L = Σ_m l(z_m) + 2 L_task(z), z = fusion(z_a, z_v, z_t) itself.
    - ``complete``: L = Σ_m l(z_m) + l(z) + L_task(z), z a code of fusion(z_a, z_v, z_t).

    With ``poe`` the product is z in every variant:

    .. math::
        z \sim N(μ, Λ^{-1}), \quad Λ = 1 + \sum_m σ_m^{-2}, \quad μ = Λ^{-1} \sum_m σ_m^{-2} μ_m

    In evaluation z is its mean. Files of predictions have a column ``sigma``, the mean σ of z of each row. It grows
    with what is missing, in a product by construction; of two conditions with as many modalities it need not be the
    larger under the harder one. ``late`` with ``concat`` or ``tensor`` has none, for z is no Gaussian there.

    Our choices: a product of experts by default, where the published files have concatenation (complete, early) or a
    tensor (late); an absent modality is zeros in the other two, the mean of the prior; KL and task of z_m are means
    over the rows that have m; the published weights, in which the fused task counts twice and KL is a mean over
    coordinates, so that β = 1e-3 is E times smaller than it looks; x_m of MMIN's encoders, 64 wide; tanh after each
    layer of the tensor in all variants; learning rate 1e-3, batch 128, 15+15 epochs.

    Differs from the published code (TmacMai/Multimodal-Information-Bottleneck, MIT): no noise is drawn in evaluation;
    padding is never read; all parameters are trained by one optimiser, where theirs steps inside the forward pass;
    the corpus's classes instead of one binary problem for each emotion.

    Published figures: of complete modalities only; nothing to compare with.

    What it costs: at IEMOCAP's sizes a training step takes two thirds of plain fusion's, whose encoders are twice as
    wide; with ``tensor`` some four times plain fusion's, and less than it with ``embedding_dim`` 32.

    Args:
        variant: what is compressed.
        fusion: ``poe``, a product of experts; ``concat``, linear and ReLU; ``tensor``, whose (E + 1)³ products want a
            smaller ``embedding_dim``.
        embedding_dim: E, width of x_m, z_m and z.
        bottleneck_dim: hidden width of the encoders of codes.
        beta: β.
        text_channels: output channels of each convolution over text.
        text_dropout: of the text's encoder.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.
    """

    card = ModelCard(
        "MIB",
        "codes of each modality that keep what the label needs, multiplied over what is present",
        "Mai et al., TMM",
        2022,
        "https://arxiv.org/abs/2210.17444",
        "https://github.com/TmacMai/Multimodal-Information-Bottleneck",
        "fusion",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, constant_epochs=15, decay_epochs=15)
    needs = DataNeeds(hidden_frames=False)

    def __init__(
        self,
        *,
        variant: Variant = "late",
        fusion: FusionForm = "poe",
        embedding_dim: Annotated[int, WIDTH] = 64,
        bottleneck_dim: Annotated[int, WIDTH] = 1024,
        beta: Annotated[float, NOT_NEGATIVE] = 1e-3,
        text_channels: Annotated[int, WIDTH] = 128,
        text_dropout: Annotated[float, BELOW_ONE] = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.variant, self.fusion_form = variant, fusion
        self.encoders = ModalityEncoders.of_present(self.feature_dims, embedding_dim, text_channels, text_dropout)
        if variant != "early" or fusion == "poe":
            self.bottlenecks = nn.ModuleDict({name: Bottleneck(embedding_dim, bottleneck_dim) for name in MODALITIES})
        if variant != "early":
            self.decoders = nn.ModuleDict({name: nn.Linear(embedding_dim, self.task.outputs) for name in MODALITIES})
        if fusion != "poe":
            concat = fusion == "concat"
            self.fusion = Concatenation(embedding_dim) if concat else TensorFusion(embedding_dim, embedding_dim)
            if variant != "late":
                self.bottleneck = Bottleneck(embedding_dim, bottleneck_dim)
        self.decoder = nn.Linear(embedding_dim, self.task.outputs)
        self.loss_weights = {"cls": 2.0, "kl": beta, "kl_alone": beta}

    def readers(self) -> Iterator[tuple[SequenceEncoder, nn.Module | None]]:
        """Encoder of audio, visual and text, and of its code where it has one."""
        for name, encoder in zip(MODALITIES, self.encoders.encoders(), strict=True):
            yield encoder, self.bottlenecks[name] if hasattr(self, "bottlenecks") else None

    def read(self, batch: Batch) -> Gaussian:
        """Read each modality, [B, 3, E]: its code, or x_m and no spread; a standard normal where it is absent."""
        means, stds = [], []
        for modality, (encoder, bottleneck) in enumerate(self.readers()):
            seen = visible(batch, modality)
            # A modality that nobody shows is run on zeros, so that its parameters have a gradient.
            x = encoder(seen.frames, seen.lengths) if len(seen.lengths) else encoder(*encoder.zero_frames())
            found = Gaussian(x, torch.zeros_like(x)) if bottleneck is None else bottleneck(x)
            means.append(seen.spread(found.mean))
            stds.append(seen.spread(found.std, fill=1.0))
        return Gaussian(torch.stack(means, dim=1), torch.stack(stds, dim=1))

    def draw(self, code: Gaussian) -> Tensor:
        """Take z from its code: a draw in training, the mean in evaluation."""
        drawn = code.sample() if self.training else code.mean
        return drawn.to(self.decoder.weight.dtype)

    def fuse(self, read: Gaussian, present: Tensor) -> Fused:
        """Fuse what was :meth:`read` [B, 3, E], of which bool ``present`` [B, 3] is there."""
        drawn = self.draw(read).where(present[..., None], 0.0)
        code: Gaussian | None = None
        if self.fusion_form == "poe":
            code = product_of_experts(read, present)
        elif self.variant != "late":
            code = self.bottleneck(self.fusion(drawn))
        z = self.fusion(drawn) if code is None else self.draw(code)
        return Fused(drawn, code, self.decoder(z))

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.fuse(self.read(batch), batch.present).outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of the task of z, and as the variant has them KL(z), and the sums of task and KL of z_m."""
        read, present, target = self.read(batch), batch.present, batch.target
        fused = self.fuse(read, present)
        losses = {"cls": self.task.loss(fused.outputs, target)}
        if self.variant != "late":
            assert fused.code is not None
            losses["kl"] = kl_to_standard_normal(fused.code).mean()
        if self.variant != "early":
            alone, kl = [], []
            for m, decoder in enumerate(self.decoders.values()):
                alone.append(self.loss_over(present[:, m], decoder(fused.drawn[:, m]), target))
                kl.append(known_kl(Gaussian(read.mean[:, m], read.std[:, m]), present[:, m]))
            losses["alone"], losses["kl_alone"] = torch.stack(alone).sum(), torch.stack(kl).sum()
        return losses

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Means of z_m, or x_m where only the fusion is compressed, [B, 3, E]; zeros where absent."""
        return self.read(batch).mean

    def row_values(self, batch: Batch) -> dict[str, Tensor]:
        """``sigma``: the mean σ of z, where z is a Gaussian."""
        code = self.fuse(self.read(batch), batch.present).code
        return {} if code is None else {"sigma": code.std.mean(dim=1)}
