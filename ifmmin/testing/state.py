"""Whether a state dict has all that answers need, and nothing that cannot be saved."""

from __future__ import annotations

import io

import torch
from torch import Tensor

from datamodules.batches.batch import Batch
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.testing.trial import Failure, Trial

STEPS = 2
"""Steps of training before a model is saved, so that what training changes is seen as well."""


def state(trial: Trial) -> list[Failure]:
    """Whether entries are tensors of their own, and a model that loads them answers as the one that was saved."""
    model = trial.seeded(trial.seed)
    if wrong := _entries(trial.made()):  # not converted: that would copy what shares its memory
        return [wrong]
    batch = trial.whole()
    _train(model, batch)
    before, file = _all_of(model, batch), io.BytesIO()
    torch.save(model.state_dict(), file)
    for other, whose in ((model, "its own"), (trial.seeded(trial.seed + 1, stage1=False), "another's")):
        file.seek(0)
        try:
            other.load_state_dict(torch.load(file, weights_only=True))
        except Exception as error:  # somebody else's hooks may fail in any way
            reason = printable(" ".join(line.strip() for line in str(error).splitlines()[:2]), 200)
            found = f"it cannot load {whose} state dict ({reason})"
            return [Failure(found, "let options alone decide what is in it, and no hook of loading be in the way")]
        for what, saved in before.items():
            if torch.equal(_all_of(other, batch)[what], saved):
                continue
            if other is model:
                found = f"to load its own state dict changes its {what}"
                return [Failure(found, "let no hook change what is saved or loaded")]
            found = f"a model that loads its state dict gives other {what}"
            remedy = "a buffer they need is not persistent, or a tensor no buffer; register_buffer saves it"
            return [Failure(found, remedy)]
    return []


def _entries(model: MissingModalityModule) -> Failure | None:
    """An entry that is no tensor, or shares its memory with another."""
    seen: dict[int, str] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            found = f"entry {name} of its state dict is no tensor ({type(value).__name__})"
            return Failure(found, "register a buffer, or make it an option")
        if not value.numel():
            continue
        place = value.untyped_storage().data_ptr()
        if place in seen:
            found = f"entries {seen[place]} and {name} of its state dict share memory"
            return Failure(found, "register it once and read it there, or clone it")
        seen[place] = name
    return None


def _train(model: MissingModalityModule, batch: Batch) -> None:
    """Take a few steps, and leave the model in eval mode."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-4)  # its steps are small, however large a gradient is
    model.train()
    for _ in range(STEPS):
        optimizer.zero_grad()
        model.total_loss(model.losses(batch)).backward()
        optimizer.step()
    model.eval()


@torch.no_grad()
def _all_of(model: MissingModalityModule, batch: Batch) -> dict[str, Tensor]:
    """Answers and losses in eval mode, of one seed."""
    torch.manual_seed(0)
    outputs: Tensor = model(batch)
    return {"answers": outputs, "losses": torch.stack([*model.losses(batch).values()])}
