"""What a predictor says of one utterance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ifmmin.results.answers import most_probable


class Answer(dict[str, float]):
    """Probabilities by class name, or ``{"value": ...}``: a dictionary that also says what it rests on.

    What a predictor may add to an answer is an attribute with a default here, given by keyword, so that an answer
    stays a plain dictionary to whoever reads nothing else.

    Args:
        values: by name.
        frames: see the attribute.
        lost: see the attribute.
        abstained: see the attribute.

    Attributes:
        frames: how many frames of each modality that the model saw, without lost ones.
        lost: how many frames were lost, by modality, of those that lost any, all of theirs included.
        abstained: whether no class was as probable as the caller wanted.
        seconds: of a stream, the time of the answer; otherwise None.

    >>> answer = Answer({"angry": 0.3, "sad": 0.7}, frames={"audio": 40, "text": 22}, lost={"audio": 2})
    >>> answer["sad"], answer.prediction, answer.condition, answer == {"angry": 0.3, "sad": 0.7}
    (0.7, 'sad', 'at', True)
    """

    def __init__(
        self,
        values: Mapping[str, float] | Iterable[tuple[str, float]] = (),
        *,
        frames: Mapping[str, int] | None = None,
        lost: Mapping[str, int] | None = None,
        abstained: bool = False,
    ) -> None:
        super().__init__(values)
        self.frames: dict[str, int] = dict(frames or {})
        self.lost: dict[str, int] = dict(lost or {})
        self.abstained = abstained
        self.seconds: float | None = None

    @property
    def prediction(self) -> str | float | None:
        """Name of the most probable class, or the value of a regression; None where it abstained."""
        return None if self.abstained else most_probable(self)

    @property
    def lost_frames(self) -> int:
        """How many frames were lost of all modalities together."""
        return sum(self.lost.values())

    @property
    def present(self) -> tuple[str, ...]:
        """Modalities that the model saw."""
        return tuple(self.frames)

    @property
    def condition(self) -> str:
        """The same as a name of :data:`~datamodules.conditions.CONDITIONS`, such as ``at``."""
        return "".join(name[0] for name in self.frames)
