"""A training loss that is NaN or infinite: found at its batch, and named with the utterances in it."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.errors import InputError
from datamodules.text import printable

SHOWN = 5
"""Utterances of a batch that a message names."""


class FiniteLoss:
    """Looks at the loss of each batch of an epoch, without waiting for a GPU.

    On a CPU a bad loss raises at once. On a GPU its batch is marked there, and raised at the epoch's end: to ask after
    every step would cost a synchronisation.

    Args:
        model: its name, for messages.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._utterances: list[list[str]] = []
        self._first: Tensor | None = None

    def look(self, loss: Tensor, utterances: list[str], epoch: int) -> None:
        """Look at the loss of the epoch's next batch.

        Args:
            loss: scalar.
            utterances: ids of the batch.
            epoch: counted from 0.

        Raises:
            InputError: the loss is on a CPU, and NaN or infinite.
        """
        batch = len(self._utterances)
        self._utterances.append(utterances)
        bad = ~loss.detach().isfinite()
        if loss.device.type == "cpu":
            if bool(bad):
                raise self._error(float(loss.detach()), epoch, batch)
            return
        if self._first is None:
            self._first = loss.detach().new_full((), -1, dtype=torch.int64)
        self._first = torch.where(bad & (self._first < 0), batch, self._first)

    def conclude(self, epoch: int) -> None:
        """End the epoch.

        Raises:
            InputError: the loss of a batch was NaN or infinite.
        """
        first = -1 if self._first is None else int(self._first)
        if first >= 0:
            raise self._error(None, epoch, first)
        self._utterances, self._first = [], None

    def _error(self, value: float | None, epoch: int, batch: int) -> InputError:
        ids = self._utterances[batch]
        more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
        named = ", ".join(printable(name, 60) for name in ids[:SHOWN])
        found = "not finite" if value is None else value
        return InputError(
            f"{self._model}: the training loss is {found} in epoch {epoch + 1}, batch {batch + 1} "
            f"(utterances {named}{more}); lower --model.learning_rate, or look at the corpus with `check`."
        )
