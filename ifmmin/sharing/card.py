"""The model card of a saved model, made from its class, its training data and its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datamodules.conditions import COMPLETE, CONDITIONS, MODALITIES
from datamodules.text import printable
from ifmmin.results.files import from_json
from ifmmin.results.results import Results, corpus_title, readable
from ifmmin.results.tables import interval_text
from ifmmin.sharing.licences import Licence, licence_of
from ifmmin.tasks import SUMMARY_ROWS

if TYPE_CHECKING:
    from ifmmin.base import MissingModalityModule

_HUB_METRICS = {"WA": "accuracy", "UA": "recall", "F1": "f1", "MAE": "mae", "Corr": "pearsonr"}
"""What the Hub calls a score."""

_INDEXED = ("pooled", COMPLETE)
"""Rows whose scores the front matter has; all are in the card's table."""

_WITH_INTERVALS = 2

_GENERATED = (
    "**No result on a corpus of speech.** This model was trained and scored on generated data, and knows nothing of "
    "people: its scores say nothing about a real corpus."
)


def model_card(
    model: MissingModalityModule,
    data: Mapping[str, Any] | None,
    scores: Mapping[str, Any] | None,
    environment: Mapping[str, Any],
    licence: str | None = None,
) -> str:
    """Write the card in Markdown, with the Hub's front matter.

    Args:
        model: trained.
        data: the record of its training data, None if it has none.
        scores: of its run, in the form of ``metrics.json``; None if there are none.
        environment: ``versions``, ``commit`` and ``dirty`` of the library that saved it.
        licence: of the weights, an id of the Hub's list, instead of that of the corpus.
    """
    results = None if scores is None else from_json(scores)
    corpus, generated = _corpus(data, results)
    own = licence_of(None if data is None else str(data["name"]), generated, licence)
    front = _front(model, results, generated, own)
    parts = [
        f"---\n{front}---",
        f"# {type(model).__name__}{f' on {corpus}' if corpus else ''}",
        *([_GENERATED] if generated else []),
        _about(model),
        "## Use",
        _use(model, data),
        "## Trained on",
        _trained_on(corpus, data),
        "## Results",
        "The run's scores were not given." if scores is None or results is None else _table(results, scores),
        "## Intended use",
        _intended(model),
        "## Limits",
        _limits(model, data, results, generated),
        "## Licence",
        _licence(own),
        "## Made with",
        _made_with(scores, environment),
    ]
    return "\n\n".join(parts) + "\n"


def _corpus(data: Mapping[str, Any] | None, results: Results | None) -> tuple[str | None, bool]:
    """The corpus as titles name it, and whether its data are generated."""
    if data is None:
        return None, False
    generated, invented = bool(data.get("synthetic")), data.get("invented")
    if results is not None and results.corpus == data["name"]:
        generated, invented = generated or results.is_synthetic, results.invented
    return corpus_title(str(data["name"]), generated, invented), generated


def _front(model: MissingModalityModule, results: Results | None, generated: bool, licence: Licence) -> str:
    import yaml

    family = getattr(getattr(model, "card", None), "family", None)
    tags = ["ifmmin", "emotion-recognition", "multimodal", "missing-modalities", model.task.name]
    tags += [str(family)] if family else []
    front: dict[str, Any] = {"license": licence.id}
    front |= {"license_name": licence.name} if licence.name else {}
    front |= {"license_link": licence.link} if licence.link else {}
    front |= {"library_name": "ifmmin", "tags": [*tags, *(["synthetic"] if generated else [])]}
    if results is not None:
        front["metrics"] = [_HUB_METRICS.get(score.name, score.name.lower()) for score in results.task.scores[:3]]
        front["model-index"] = [{"name": type(model).__name__, "results": [_indexed(results)]}]
    text: str = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)
    return text


def _indexed(results: Results) -> dict[str, Any]:
    name = corpus_title(results.corpus, results.is_synthetic, results.invented)
    table, scores = results.scores(), results.task.scores
    names = {score.name: _HUB_METRICS.get(score.name, score.name.lower()) for score in scores}
    metrics = [
        {
            "type": names[score.name],
            "name": f"{score.name} {readable(row)}",
            "value": value,
        }
        for row in _INDEXED
        for score in scores
        if (value := table[row][score.name]) is not None
    ]
    dataset = {"name": name, "type": "synthetic" if results.is_synthetic else _slug(results.corpus)}
    return {
        "task": {"type": "emotion-recognition", "name": f"{results.task.name} with missing modalities"},
        "dataset": {**dataset, "split": f"{results.split}, fold {results.fold}"},
        "metrics": metrics,
    }


def _about(model: MissingModalityModule) -> str:
    card = getattr(model, "card", None)
    about = "It answers for utterances of which some modalities are missing, from those that are there."
    if card is None:
        return about
    source = f"[{printable(card.source)}]({card.url})" if card.url else printable(card.source)
    faithful = "" if card.faithful is True else f", {printable(card.faithful)}"
    return f"{printable(card.title)} ({source}{faithful}): {printable(card.summary)}. {about}"


def _use(model: MissingModalityModule, data: Mapping[str, Any] | None) -> str:
    if data is None:
        return (
            "```python\nfrom ifmmin import MissingModalityModule\n\nMissingModalityModule.from_pretrained(FOLDER)\n```"
        )
    lines = ["| modality | features | width | normalised |", "|---|---|---|---|"]
    names = data.get("feature_names") or MODALITIES
    for modality, feature, width, how in zip(
        MODALITIES, names, data["feature_dims"], data["normalization"], strict=True
    ):
        made = (data.get("extraction") or {}).get(modality)
        by = f", by {_cell(made['extractor'])} at {made['rate']} Hz" if made and made.get("rate") else ""
        lines.append(f"| {modality} | {_cell(feature)}{by} | {width} | {_cell(how)} |")
    code = (
        "```python\nfrom ifmmin import Predictor\n\npredictor = Predictor.from_pretrained(FOLDER_OR_NAME)\n"
        'predictor.predict({"audio": audio, "text": text})  # frames [T, D]; what is missing is left out\n```'
    )
    return code + "\n\n" + "\n".join(lines)


def _trained_on(corpus: str | None, data: Mapping[str, Any] | None) -> str:
    if data is None:
        return "The model has no record of training data."
    predicts = ", ".join(map(_cell, data["class_names"]))
    lines = [
        f"- corpus: {corpus}",
        f"- fold {data['fold']}, seed {data['seed']}",
        f"- classes: {predicts}" if predicts else f"- values: {_range(data.get('task') or {})}",
        f"- data fingerprint: `{_cell(data['fingerprint'])}`",
        *(f"- `--data.{name} {_cell(value).lower()}`" for name, value in _masking(data) if value not in (None, False)),
    ]
    return "\n".join(lines)


def _masking(data: Mapping[str, Any]) -> list[tuple[str, object]]:
    """What was hidden in training, by option."""
    masking = data.get("masking") or {}
    return [(name, masking.get(name)) for name in ("train_mask", "permanent_mask", "train_pattern")]


def _range(task: Mapping[str, Any]) -> str:
    """The values of a regression."""
    return " to ".join(_cell(f"{task[end]:g}") for end in ("low", "high")) if "low" in task else _cell(task.get("name"))


def _table(results: Results, scores: Mapping[str, Any]) -> str:
    """The table of the run, with intervals, and what it is of."""
    columns, limited = results.task.scores, results.task.score(results.task.limited)
    stated, bayes = scores["metrics"], results.task.limit_column
    with_bayes = any(stated[row].get(bayes) is not None for row in SUMMARY_ROWS)
    heading = ["condition", *(score.name for score in columns), *([f"Bayes {limited.name}"] if with_bayes else []), "n"]
    lines = ["| " + " | ".join(heading) + " |", "|---" * len(heading) + "|"]
    for row in results.rows():
        cells = [score.format(row.scores[score.name]) for score in columns]
        if results.intervals is not None:
            for place, score in enumerate(columns[:_WITH_INTERVALS]):
                cells[place] += interval_text(score, results.intervals.values[row.condition][score.name])
        cells += [limited.format(stated[row.condition].get(bayes))] if with_bayes else []
        lines.append("| " + " | ".join([results.label(row.condition), *cells, str(row.n or "–")]) + " |")
    caption = f"{' · '.join(results.title().splitlines()[1:])}."
    if results.intervals is not None:
        caption += f" {results.intervals.caption()}."
    if with_bayes:
        caption += f" Bayes {limited.name}: of the best rule there is, on the same utterances."
    return "\n".join(lines) + f"\n\n{caption}"


def _intended(model: MissingModalityModule) -> str:
    answered = [readable(condition) for condition in CONDITIONS if model.answers(condition)]
    conditions = "any combination of modalities" if len(answered) == len(CONDITIONS) else ", ".join(answered)
    return (
        "Research on emotion recognition when a modality is missing: to compare methods, and to answer for features "
        f"made as those above. It answers {conditions}."
    )


def _limits(
    model: MissingModalityModule, data: Mapping[str, Any] | None, results: Results | None, generated: bool
) -> str:
    lines = []
    if results is not None:
        drawn = results.intervals.over if results.intervals is not None else None
        lines.append(
            "One fold and one seed: other folds and seeds give other scores"
            + (f", which the intervals, over {drawn}, do not cover." if drawn else ".")
        )
    if generated:
        lines.append("Frames of any other source mean nothing to it.")
    elif data is not None:
        lines.append(f"Trained for the test of fold {data['fold']}: it has seen the test data of the other folds.")
        lines.append("Features of another extractor, language, microphone or camera were not tried.")
    lines.append(
        "A label is what annotators saw or heard, not what a person feels. Not for decisions about people, at work, in "
        "education or elsewhere."
    )
    if remarks := [printable(remark) for remark in model.remarks]:
        lines.append(f"{'; '.join(remarks)}.")
    return "\n".join(f"- {line}" for line in lines)


def _licence(licence: Licence) -> str:
    link = f" [{licence.name}]({licence.link})." if licence.link else ""
    return f"{licence.says}{link}"


def _made_with(scores: Mapping[str, Any] | None, environment: Mapping[str, Any]) -> str:
    record = environment if scores is None else {**environment, **scores["record"]}
    versions = found if isinstance(found := record.get("versions"), Mapping) else {}
    named = ", ".join(
        f"{name} {_cell(versions[name])}" for name in ("ifmmin", "torch", "lightning") if versions.get(name)
    )
    commit = record.get("commit")
    changed = " with changes" if record.get("dirty") else ""
    at = f", commit `{_cell(commit)}`{changed}" if commit else ""
    kept = ", the scores in `results.json`" if scores is not None else ""
    return f"{named}{at}. Options and training data are in `config.json`{kept}."


def _cell(value: object) -> str:
    """Text of a stranger's record, in a table."""
    return printable(value, 80).replace("|", "\\|").replace("`", "'")


def _slug(text: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text.lower()).strip("-")
