"""What a fit or a test prints and leaves behind: the table, ``metrics.json``, CSV and the confusion matrices.

Values are fractions in [0, 1] in files and percent where a person reads them. What a model does not
answer is None, an empty cell or a dash, never a number.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from rich.table import Table
from torch import Tensor

from datamodules.batch import COMPLETE, CONDITIONS, MISSING_CONDITIONS
from datamodules.files import atomic_path, write_text
from ifmmin.metrics import SUMMARY_ROWS, summarise

if TYPE_CHECKING:
    import wandb

SYNTHETIC = "built-in synthetic corpus (not a corpus result)"
"""What stands in place of the corpus name for the built-in corpus."""

PACKAGES: tuple[str, ...] = ("ifmmin", "torch", "lightning", "torchmetrics", "numpy", "h5py", "jsonargparse", "wandb")
"""The distributions whose versions a result records."""


@dataclass(frozen=True)
class Row:
    """One row of the table; metrics in [0, 1], None where not answered.

    Attributes:
        condition: one of the seven conditions, ``"mean"`` or ``"pooled"``.
        WA: accuracy.
        UA: mean recall over the classes that occur.
        F1: macro F1.
        bayes_WA: WA of the Bayes rule on the same utterances, where it is known.
        n: the number of rows counted; None for ``"mean"``.
    """

    condition: str
    WA: float | None
    UA: float | None
    F1: float | None
    bayes_WA: float | None  # noqa: N815 - the name of its column
    n: int | None


@dataclass
class Results:
    """How one trained model does on one split.

    Attributes:
        corpus: the name of the corpus.
        is_synthetic: whether it is the built-in corpus.
        model: the class name of the model.
        fold: the fold, from 1.
        seed: the seed of the run.
        split: ``"test"`` or ``"val"``.
        class_names: C names, in label order.
        confusion: int64 [7, C, C], as :class:`~ifmmin.metrics.ConditionConfusion` computes it.
        bayes: per condition, the WA in [0, 1] of the Bayes rule on the same utterances; None if unknown.
        record: what it takes to do it again: config, versions, commit, data fingerprint, checkpoint, ...
    """

    corpus: str
    is_synthetic: bool
    model: str
    fold: int
    seed: int
    split: str
    class_names: list[str]
    confusion: Tensor
    bayes: Mapping[str, float] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    def metrics(self) -> dict[str, dict[str, float | None]]:
        """The values of the table, see :func:`ifmmin.metrics.summarise`."""
        return summarise(self.confusion)

    def counts(self) -> dict[str, int]:
        """The number of rows counted under each of the seven conditions, 0 where not answered."""
        return dict(zip(CONDITIONS, self.confusion.sum((1, 2)).tolist(), strict=True))

    def rows(self) -> list[Row]:
        """The nine rows of the table, in the order of :data:`ifmmin.metrics.SUMMARY_ROWS`."""
        counts = self.counts()
        numbers: dict[str, int | None] = {**counts, "mean": None}
        numbers["pooled"] = sum(counts[condition] for condition in MISSING_CONDITIONS)
        bayes = self._bayes_rows()
        metrics = self.metrics()
        return [Row(name, **metrics[name], bayes_WA=bayes.get(name), n=numbers[name]) for name in SUMMARY_ROWS]

    def title(self) -> str:
        """Two lines: model and corpus; fold, seed, split and the number of utterances."""
        corpus = SYNTHETIC if self.is_synthetic else self.corpus
        size = f" · {self.common_count()} utterances" if self.common_count() else ""
        return f"{self.model} on {corpus}\nfold {self.fold} · seed {self.seed} · {self.split}{size}"

    def common_count(self) -> int | None:
        """The number of utterances under every answered condition, None if it is not the same for all."""
        answered = {count for count in self.counts().values() if count}
        return answered.pop() if len(answered) == 1 else None

    def _bayes_rows(self) -> dict[str, float]:
        """Bayes WA of the conditions, and their mean and pooled values where these are defined."""
        if self.bayes is None:
            return {}
        rows = {condition: float(value) for condition, value in self.bayes.items()}
        if all(condition in rows for condition in MISSING_CONDITIONS):
            rows["mean"] = sum(rows[condition] for condition in MISSING_CONDITIONS) / len(MISSING_CONDITIONS)
        counts = {condition: count for condition in MISSING_CONDITIONS if (count := self.counts()[condition])}
        if counts and all(condition in rows for condition in counts):
            right = sum(rows[condition] * count for condition, count in counts.items())
            rows["pooled"] = right / sum(counts.values())
        return rows


def readable(row: str) -> str:
    """A row as people write it.

    Example:
        >>> readable("av"), readable("pooled"), readable("avt")
        ('{a,v}', 'pooled', 'full {a,v,t}')
    """
    if row not in CONDITIONS:
        return row
    braces = "{" + ",".join(row) + "}"
    return f"full {braces}" if row == COMPLETE else braces


def results_table(results: Results) -> Table:
    """The table to print, in percent: the six missing conditions, their mean, pooled, and full.

    A pooled row over fewer than six conditions names them. Where conditions count different numbers
    of utterances, a column gives them.
    """
    title = results.title()
    table = Table(title=title, title_justify="left", min_width=max(map(len, title.splitlines())))
    table.add_column("condition", no_wrap=True)
    with_bayes, with_n = results.bayes is not None, results.common_count() is None
    for heading in ["WA", "UA", "F1"] + ["Bayes WA"] * with_bayes + ["n"] * with_n:
        table.add_column(heading, justify="right")
    for row in results.rows():
        cells = [_percent(row.WA), _percent(row.UA), _percent(row.F1)]
        cells += [_percent(row.bayes_WA)] * with_bayes + [str(row.n or "–")] * with_n
        # Lines set the six conditions, their two averages and the complete condition apart.
        last_of_block = row.condition in (MISSING_CONDITIONS[-1], "pooled")
        table.add_row(_label(results, row.condition), *cells, end_section=last_of_block)
    return table


def _label(results: Results, row: str) -> str:
    """The readable row; a pooled row over fewer than six conditions says over which."""
    answered = [readable(condition) for condition in MISSING_CONDITIONS if results.counts()[condition]]
    if row == "pooled" and 0 < len(answered) < len(MISSING_CONDITIONS):
        return "pooled over " + " ".join(answered)
    return readable(row)


def _percent(value: float | None) -> str:
    """Two decimals, or a dash where there is no value."""
    return "–" if value is None else f"{100 * value:.2f}"


def write_results(results: Results, folder: str | Path, prefix: str = "") -> list[Path]:
    """Write ``metrics.json``, ``metrics.csv`` and ``confusion.png``, each whole or not at all.

    Args:
        results: what to write.
        folder: made if it is not there.
        prefix: put before each of the three names, for instance ``"val_"``.

    Returns:
        the three paths.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    folder = Path(folder)
    paths = [folder / f"{prefix}{name}" for name in ("metrics.json", "metrics.csv", "confusion.png")]
    write_text(paths[0], json.dumps(as_json(results), indent=2, allow_nan=False) + "\n")
    write_text(paths[1], _csv_text(results))
    with atomic_path(paths[2]) as temporary:
        confusion_figure(results).savefig(temporary)
    return paths


def as_json(results: Results) -> dict[str, Any]:
    """All of ``results`` as JSON knows it; metrics in [0, 1], None where there is no number."""
    return {
        "model": results.model,
        "corpus": results.corpus,
        "is_synthetic": results.is_synthetic,
        "fold": results.fold,
        "seed": results.seed,
        "split": results.split,
        "metrics": {values.pop("condition"): values for values in map(asdict, results.rows())},
        "class_names": list(results.class_names),
        "confusion": dict(zip(CONDITIONS, results.confusion.tolist(), strict=True)),
        "record": _plain(results.record),
    }


def _plain(value: Any) -> Any:
    """``value`` out of dicts, lists, strings and finite numbers; what is neither is written as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays, and tensors
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    return str(value)


def _csv_text(results: Results) -> str:
    """One line per row of the table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [column.name for column in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in results.rows())
    return text.getvalue()


def confusion_figure(results: Results) -> Figure:
    """Draw :func:`confusion_grid` of one result, each matrix under its WA and UA."""
    rows = {row.condition: row for row in results.rows()}
    matrices = dict(zip(CONDITIONS, results.confusion.cpu(), strict=True))
    matrices["pooled"] = torch.stack([matrices[condition] for condition in MISSING_CONDITIONS]).sum(0)
    headings = {
        name: f"{_label(results, name)}\nWA {_percent(rows[name].WA)}   UA {_percent(rows[name].UA)}"
        for name in matrices
    }
    return confusion_grid(results.title(), headings, matrices, results.class_names)


def empty_figure(width: float, height: float, dpi: float = 100) -> Figure:
    """A white figure of ``width`` x ``height`` inches, ``dpi`` dots each, that makes room for its labels."""
    # Not pyplot: it would choose a backend and keep every figure for the whole process.
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(width, height), dpi=dpi, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def confusion_grid(
    title: str, headings: Mapping[str, str], matrices: Mapping[str, Tensor], class_names: Sequence[str]
) -> Figure:
    """Draw eight confusion matrices, one per condition and one pooled.

    Args:
        title: of the whole figure.
        headings: what stands above each matrix, by condition and ``"pooled"``.
        matrices: counts [C, C], true classes in rows, by condition and ``"pooled"``.
        class_names: C names, in label order.
    """
    figure = empty_figure(15, 8.4, dpi=110)
    grid = figure.subplots(2, 4, sharex=True, sharey=True)
    # One available modality above, two below, and what is reported apart in the last column.
    order = ("a", "v", "t", COMPLETE, "av", "at", "vt", "pooled")
    for axes, name in zip(grid.flat, order, strict=True):
        axes.set_title(headings[name], fontsize=12)
        draw_matrix(axes, matrices[name], class_names)
    for axes in grid[:, 0]:
        axes.set_ylabel("true class (each row is 100%)", fontsize=11)
    for axes in grid[1]:
        axes.set_xlabel("predicted class", fontsize=11)
    figure.suptitle(title, fontsize=14)
    return figure


def draw_matrix(axes: Axes, confusion: Tensor, class_names: Sequence[str]) -> None:
    """Draw one confusion matrix.

    Args:
        axes: where.
        confusion: counts [C, C], true classes in rows; colour and percent are shares of the row, the
            count stands below. An empty one is marked as not answered.
        class_names: C names, in label order.
    """
    total = confusion.sum(1, keepdim=True)
    shares = (confusion / total.clamp(min=1)).numpy()
    classes = len(class_names)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    font = 10 if classes <= 5 else max(4.0, 50 / classes)
    names = [name if len(name) <= 12 else f"{name[:11]}…" for name in class_names]
    slant = 0 if sum(map(len, names)) <= 28 else 40
    turned: dict[str, Any] = {"rotation": slant, "ha": "right", "rotation_mode": "anchor"} if slant else {}
    axes.set_xticks(range(classes), names, fontsize=font, **turned)
    axes.set_yticks(range(classes), names, fontsize=font)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color("#b0b0b0")
    if not bool(confusion.any()):
        middle = (classes - 1) / 2
        axes.text(middle, middle, "not answered", ha="center", va="center", fontsize=12, color="#606060")
        return
    for i in range(classes):
        for j in range(classes):
            percent = f"{100 * shares[i, j]:.0f}%" if total[i] else "–"
            colour = "white" if shares[i, j] > 0.55 else "#202020"
            label = f"{percent}\n{int(confusion[i, j])}"
            axes.text(j, i, label, ha="center", va="center", fontsize=font, color=colour)


def environment_record() -> dict[str, Any]:
    """When, where and with what a result was made.

    Returns:
        ``date`` (UTC, ISO 8601), ``platform``, ``threads`` (PyTorch's, within operators),
        ``versions`` (Python and :data:`PACKAGES`; None for what is not installed), ``commit`` and
        ``dirty`` of the checkout this package lies in, both None where it lies in none.
    """
    commit, dirty = _checkout(Path(__file__).resolve())
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "commit": commit,
        "dirty": dirty,
    }


def _version(package: str) -> str | None:
    """The installed version, None for a package used in place without an install."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _checkout(file: Path) -> tuple[str | None, bool | None]:
    """The commit of the checkout that tracks ``file``, and whether tracked files differ from it."""
    # Git's hooks set variables that would lead to another repository.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(file.parent), *arguments]
        return subprocess.run(command, env=clean, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        # An environment's site-packages may lie inside some other project's checkout: it is not tracked there.
        git("ls-files", "--error-unmatch", file.name)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def log_to_wandb(results: Results, experiment: wandb.Run, paths: Iterable[Path]) -> None:
    """Send the table, its values and the confusion matrices to a Weights & Biases run.

    Args:
        results: what to send.
        experiment: the run, for instance ``WandbLogger().experiment``.
        paths: what :func:`write_results` returned; the PNG among them is sent as an image.

    The table is logged as ``test/table`` and the image as ``test/confusion``; every value goes to the
    run's summary, under a name such as ``test/pooled/UA``, in [0, 1]. ``val`` stands for ``test`` there
    where that is the split.
    """
    import wandb

    rows = results.rows()
    columns: list[str | int] = [column.name for column in fields(Row)]
    table = wandb.Table(columns=columns, data=[list(asdict(row).values()) for row in rows])
    images = {f"{results.split}/confusion": wandb.Image(str(path)) for path in paths if path.suffix == ".png"}
    experiment.log({f"{results.split}/table": table, **images})
    for row in rows:
        for metric in ("WA", "UA", "F1", "bayes_WA"):
            value = getattr(row, metric)
            if value is not None:
                experiment.summary[f"{results.split}/{row.condition}/{metric}"] = value
