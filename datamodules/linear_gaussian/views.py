"""How a modality of a linear-Gaussian corpus sees the latent, and the three modalities of Synthetic."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.errors import InputError


@dataclass(frozen=True)
class View:
    """How one modality sees the latent and turns it into frames.

    Standard deviations are in units of the latent, whose directions in x have length 1.

    Attributes:
        dim: D, linear features per frame; at least the latent's size and the distractors together.
        loadings: l_m [k], the diagonal of P_m: how much is seen of each latent coordinate.
        nuisance: q_m, standard deviation of the private nuisance.
        noise: sigma_m, standard deviation of a frame's noise per feature.
        median_length: T_0, the median number of frames (log-normal before clipping).
        length_spread: standard deviation of the log of the number of frames.
        shortest: least number of frames.
        longest: greatest number of frames.
        distractors: coordinates of d_m.
        distractor_std: delta_m, the standard deviation of each.
        rms: root mean square of the written values, outliers aside.
        split_signs: whether positive and negative part are written as two features.
        outliers: how many features, the first ones, are written on a larger scale.
    """

    dim: int
    loadings: tuple[float, ...]
    nuisance: float
    noise: float
    median_length: float
    length_spread: float
    shortest: int
    longest: int
    distractors: int = 0
    distractor_std: float = 0.0
    rms: float = 1.0
    split_signs: bool = False
    outliers: int = 0

    @property
    def width(self) -> int:
        """Written features per frame: D, or 2 D where signs are split."""
        return 2 * self.dim if self.split_signs else self.dim

    def check(self) -> None:
        """Check that the parameters fit together.

        Raises:
            InputError: they do not.
        """
        ordered = 1 <= self.shortest <= self.median_length <= self.longest
        spreads = min(self.nuisance, self.length_spread, self.distractor_std, self.distractors, self.outliers) >= 0
        room = self.dim >= max(len(self.loadings) + self.distractors, self.outliers)
        if not (ordered and spreads and room and self.noise > 0 and self.rms > 0):
            raise InputError(
                f"linear-Gaussian corpus: {self}: dim must have room for loadings and distractors, 1 <= shortest <= "
                "median_length <= longest, noise and rms must be positive, and no number negative."
            )


# Overlap and nuisances were fitted together, with the frame noise in place, so that the Bayes rule's WA comes
# near what is published for IEMOCAP: a 58, v 54, t 69, av 67, at 76, vt 75 %.
# They give a 57.8, v 54.0, t 68.9, av 67.2, at 76.1, vt 74.6, avt 79.8 %.
OVERLAP = 0.51
"""tau of Synthetic, the standard deviation of the semantic latent within a class."""

# Written as large as real features are: z-scored audio, activations behind a ReLU, BERT's hidden states.
VIEWS: tuple[View, View, View] = (
    View(24, (1.0, 0.8, 0.9, 1.0, 0.9, 0.8), 1.64, 0.455, 16.0, 0.4, 6, 40),
    View(20, (0.8, 1.0, 0.9, 0.9, 0.8, 1.0), 1.87, 0.556, 11.0, 0.2, 8, 14, rms=0.25, split_signs=True),
    View(32, (0.9, 1.0, 1.0, 0.8, 1.0, 0.9), 1.25, 0.325, 7.0, 0.3, 4, 12, rms=0.5, outliers=2),
)
"""Audio, visual and text of Synthetic: text sees most, visual least."""
