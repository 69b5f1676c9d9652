"""``save_pretrained`` and ``push_to_hub``, of models and predictors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ifmmin.base import MissingModalityModule


class Shared:
    """What can be saved as a folder and shared."""

    @abstractmethod
    def _saved(self) -> tuple[MissingModalityModule, Mapping[str, Any] | None]:
        """The model, and the record of its training data where the model does not have it."""

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        run: str | Path | None = None,
        licence: str | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write weights, configuration, preprocessing and a model card into a folder, which ``from_pretrained`` reads.

        Args:
            folder: made by this.
            run: folder of a fit or a test whose scores the card shows; by default what is beside the checkpoint that
                the model was loaded from.
            licence: of the weights, an id of the Hub's list such as ``"cc-by-4.0"``; by default that of the corpus.
            overwrite: replace a model that was saved there before.

        Returns:
            the folder.

        Raises:
            InputError: something else is in its place, the weights are not finite, or the scores are of another model
                or training.
            OSError: the disk is full or may not be written; what was there before is as it was.
        """
        from ifmmin.sharing.writing import save_folder

        model, data = self._saved()
        return save_folder(model, folder, data=data, run=run, licence=licence, overwrite=overwrite)

    def push_to_hub(
        self,
        name: str,
        *,
        run: str | Path | None = None,
        licence: str | None = None,
        private: bool = True,
        revision: str | None = None,
        token: str | None = None,
    ) -> str:
        """Upload what :meth:`save_pretrained` writes to the Hugging Face Hub, in one commit.

        Args:
            name: ``org/name``.
            run: see :meth:`save_pretrained`.
            licence: see :meth:`save_pretrained`.
            private: whether nobody else sees it, if it is new: what is trained on a licensed corpus falls under its
                licence.
            revision: branch.
            token: of the Hub; by default the one that is logged in.

        Returns:
            the address of the commit.

        Raises:
            InputError: as :meth:`save_pretrained`, or it cannot be uploaded, or the extra ``hub`` is not installed.
        """
        from ifmmin.sharing.hub import push
        from ifmmin.sharing.writing import files_of

        model, data = self._saved()
        files = files_of(model, data=data, run=run, licence=licence)
        return push(name, files, private=private, revision=revision, token=token)
