"""Judge saved models on one labelled file and record which is better.

The statistics stand in `stance.evaluation.paired`; here models are loaded, runs that differ only
in their seed are put together, and the result is written to disk and to MLflow.
"""

import json
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stance.classifiers.explanations import explain
from stance.config import EvaluateConfig, columns_of
from stance.corpus.examples import Split, check_scorable, read_split, sentence_key
from stance.errors import UserError
from stance.evaluation import plots
from stance.evaluation.errors import Analysis, analyse, suspected_labels
from stance.evaluation.metrics import PRIMARY, Judged, point_scores
from stance.evaluation.page import ModelPart, error_page
from stance.evaluation.paired import PRIMARY_TITLE, Comparison, compare, describe
from stance.model import StanceModel, load_model
from stance.tracking import (
    KIND,
    DataSource,
    Run,
    open_store,
    reopen_run,
    start_run_if_possible,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Models judged on one labelled file: where each lies, what it said, and the comparison."""

    directories: dict[str, Path]
    models: dict[str, StanceModel]
    split: Split
    judged: dict[str, Judged]
    comparison: Comparison
    report: Path
    page: Path | None = None


def evaluate(config: EvaluateConfig, reference: Path | None = None) -> Evaluation:
    """Judge and compare the models that a config names; record it in MLflow and on disk.

    Args:
        config: the settings.
        reference: a saved model to compare all others with; the first one named if omitted.

    Raises:
        UserError: a model or the file cannot be used, models have different codebooks (cue rules
            apart), or one of them was trained on sentences of the file.
    """
    data_file = Path(config.data_file)
    name = name_of(data_file, Path(config.models_dir))
    report = Path(config.output or _report(Path(config.models_dir), name))
    if report.resolve() == data_file.resolve():
        raise UserError(f"output: {report}: this is the labelled file")
    directories = _directories(config.models, reference)
    models = load_models(directories)
    codebook = next(iter(models.values())).codebook
    split = read_split(data_file, name, codebook, columns_of(config.columns))
    check_scorable(split, config.data_file)
    if not config.allow_overlap:
        check_unseen(models, split, config.data_file)
    judged = {name: model.judge(split, config.operating_point) for name, model in models.items()}
    pooled = pool_seeds(models) if config.pool_seeds else {name: [name] for name in models}
    comparison = compare(
        {name: [judged[member] for member in members] for name, members in pooled.items()},
        config.data_file,
        config.resamples,
        config.seed,
    )
    write_whole(report, json.dumps(report_of(comparison, models, judged, pooled), indent=2) + "\n")
    evaluation = Evaluation(directories, models, split, judged, comparison, report)
    store = open_store(config.tracking, config.models_dir)
    tags = {f"stance.model.{name}": model.digest for name, model in models.items()}
    tags[KIND] = "compare"
    analyses = analyse_models(evaluation) if config.report else {}
    page = report.with_suffix(".html")
    if analyses:
        write_whole(page, report_page(evaluation, analyses, config.operating_point))
    with start_run_if_possible(store, f"compare on {split.name}", tags) as run:
        record_comparison(run, evaluation, config)
        for name, analysis in analyses.items():
            run.log_table(slice_table(analysis), f"{name}/slices.json")
            run.log_table(suspect_table(analysis), f"{name}/suspected_label_errors.json")
        if analyses:
            run.log_text(page.read_text(encoding="utf-8"), page.name)
        if run.id and config.operating_point is None:
            for name, model in models.items():
                own = (model.record.get("data") or {}).get(split.name)
                if own and own["digest"] != split.digest:
                    continue  # another file than the split that the run has scores of
                scores = point_scores(judged[name])
                found = {f"{split.name}/{key}": value for key, value in scores.items()}
                reopen_run(store, model.record.get("run", "")).log_metrics(found)
    return replace(evaluation, page=page if analyses else None)


def name_of(data_file: Path, models_dir: Path) -> str:
    """Name a labelled file by its stem, or by more of its path where that is another file's."""
    parts = data_file.resolve().with_suffix("").parts[1:]
    names = ["-".join(parts[-length:]) for length in range(1, len(parts) + 1)]
    return next((name for name in names if _is_free(name, data_file, models_dir)), names[-1])


def _is_free(name: str, data_file: Path, models_dir: Path) -> bool:
    try:
        report = json.loads(_report(models_dir, name).read_text(encoding="utf-8"))
        return Path(report["data"]).resolve() == data_file.resolve()
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _report(models_dir: Path, name: str) -> Path:
    return models_dir / f"evaluations/{name}.json"


def pool_seeds(models: Mapping[str, StanceModel]) -> dict[str, list[str]]:
    """Group models that differ only in their seed, and name each group, in the order given."""
    groups: dict[str, list[str]] = {}
    seeds: dict[str, set[Any]] = {}
    for name, model in models.items():
        parameters = dict(model.record.get("parameters") or {"model": name})
        seed = parameters.pop("seed", None)
        alike = [parameters, model.record.get("data"), model.codebook.digest]
        key = json.dumps(alike, sort_keys=True)
        if seed in seeds.get(key, ()):
            key = json.dumps([*alike, name], sort_keys=True)  # the seed is not what parts them
        groups.setdefault(key, []).append(name)
        seeds.setdefault(key, set()).add(seed)
    return {
        members[0] if len(members) == 1 else _pooled_name(members): members
        for members in groups.values()
    }


def _pooled_name(members: Sequence[str]) -> str:
    bases = {re.sub(r"[-_]?seed[-_]?\d+$", "", name) for name in members}
    base = bases.pop() if len(bases) == 1 else members[0]
    return f"{base}-{len(members)}-seeds"


def report_of(
    comparison: Comparison,
    models: Mapping[str, StanceModel],
    judged: Mapping[str, Judged],
    pooled: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return all figures as plain values: the comparison, its text, and each model by itself."""
    return {
        **asdict(comparison),
        "verdicts": [d.verdict for d in comparison.differences],
        "text": describe(comparison),
        "pooled": {name: list(members) for name, members in pooled.items()},
        "models": {
            name: {"digest": model.digest, "scores": point_scores(judged[name])}
            for name, model in models.items()
        },
    }


def check_unseen(models: Mapping[str, StanceModel], split: Split, path: str) -> None:
    """Hold that no model learnt from a sentence of the file.

    Raises:
        UserError: one did; the message counts the rows.
    """
    keys = [sentence_key(text) for text in split.texts]
    for name, model in models.items():
        known = sum(key in model.seen for key in keys)
        if known:
            raise UserError(
                f"{path}: {name!r} was trained or tuned on {known} of its {len(keys)} sentences; "
                f"allow_overlap=true judges all the same"
            )


def _directories(paths: Sequence[str], reference: Path | None) -> dict[str, Path]:
    """Name each saved model by its folder, the reference first."""
    if not paths:
        raise UserError("models: name at least one saved model, as in models=[models/NAME]")
    directories: dict[str, Path] = {}
    for path in map(Path, paths):
        name = path.resolve().name
        if name in directories:
            raise UserError(f"models: {name!r} is named twice")
        directories[name] = path
    if reference is None:
        return directories
    first = reference.resolve()
    if first.name in directories and directories[first.name].resolve() != first:
        raise UserError(f"models: {first.name!r} is also the name of the champion, {reference}")
    return {first.name: reference, **directories}


def load_models(directories: Mapping[str, Path]) -> dict[str, StanceModel]:
    """Load saved models.

    Raises:
        UserError: one cannot be loaded, or their codebooks differ.
    """
    models = {name: load_model(directory) for name, directory in directories.items()}
    reference, *others = models.values()
    for other in others:
        if other.codebook.without_cues() != reference.codebook.without_cues():
            raise UserError(
                f"models: {reference.name!r} and {other.name!r} were trained under different "
                f"codebooks ({reference.codebook.name} {reference.codebook.version}, "
                f"{other.codebook.name} {other.codebook.version}); the champion of each needs a "
                f"models_dir of its own"
            )
    return models


def record_comparison(run: Run, evaluation: Evaluation, config: EvaluateConfig) -> None:
    """Record scores, differences and pictures."""
    split, comparison = evaluation.split, evaluation.comparison
    run.log_data(DataSource(split.name, config.data_file, split.digest, len(split), "evaluation"))
    run.describe("\n\n".join(describe(comparison)))
    for name, judged in evaluation.judged.items():
        run.log_metrics({f"{name}/{key}": value for key, value in point_scores(judged).items()})
        run.log_figure(plots.precision_recall(judged), f"{name}/precision_recall.png")
        run.log_figure(plots.reliability(judged), f"{name}/reliability.png")
        run.log_figure(plots.label_set_confusion(judged), f"{name}/label_sets.png")
    for name, scores in comparison.scores.items():
        run.log_metrics({f"{name}/{key}": value.value for key, value in scores.items()})
    run.log_figure(plots.comparison(comparison), "comparison.png")
    run.log_table(score_table(comparison), "scores.json")
    run.log_table(difference_table(comparison), "differences.json")
    run.log_text(evaluation.report.read_text(encoding="utf-8"), "comparison.json")


def analyse_models(evaluation: Evaluation) -> dict[str, Analysis]:
    """Find and explain the errors of every judged model."""
    codebook = evaluation.split.codebook
    suspects = suspected_labels(list(evaluation.judged.values()), codebook.multi_label)

    def analyse_model(name: str) -> Analysis:
        model = evaluation.models[name]
        return analyse(
            evaluation.split,
            evaluation.judged[name],
            lambda text, label: explain(model.classifier, codebook, text, label),
            suspects,
        )

    return {name: analyse_model(name) for name in evaluation.models}


def report_page(
    evaluation: Evaluation, analyses: Mapping[str, Analysis], operating_point: str | None = None
) -> str:
    """Return the error analysis of every model as one HTML page."""
    parts = []
    for name, analysis in analyses.items():
        judged, decision = evaluation.judged[name], evaluation.models[name].decision
        figures = {
            "Precision over recall; the dot is the model's own operating point": (
                plots.precision_recall(judged)
            ),
            "Observed rate over predicted probability": plots.reliability(judged),
            "Precision, recall and F1 over the threshold": plots.thresholds(
                judged, decision.thresholds(operating_point).tolist()
            ),
            "Gold label sets (rows) against predicted ones": plots.label_set_confusion(judged),
        }
        parts.append(ModelPart(name, analysis, figures))
    return error_page(
        Path(evaluation.comparison.data).name,
        evaluation.comparison,
        score_table(evaluation.comparison),
        parts,
    )


def slice_table(analysis: Analysis) -> dict[str, list[Any]]:
    """Return the scores by slice as columns."""
    return {
        "field": [part.field for part in analysis.slices],
        "value": [part.value for part in analysis.slices],
        "sentences": [part.rows for part in analysis.slices],
        "micro F1": [str(part.f1_micro or "") for part in analysis.slices],
        "exact match": [str(part.exact_match) for part in analysis.slices],
    }


def suspect_table(analysis: Analysis) -> dict[str, list[Any]]:
    """Return the suspected label errors as columns."""
    return {
        "id": [error.id for error in analysis.suspected],
        "text": [error.text for error in analysis.suspected],
        "gold": [" + ".join(error.gold) for error in analysis.suspected],
        "predicted": [" + ".join(error.predicted) for error in analysis.suspected],
    }


_SHOWN = {
    PRIMARY: PRIMARY_TITLE,
    "f1_micro": "micro F1",
    "average_precision_macro": "macro average precision",
    "ece_macro": "calibration error",
    "exact_match": "exact match",
}


def score_table(comparison: Comparison) -> dict[str, list[Any]]:
    """Return a row for each score worth a look, a column for each model, with intervals."""
    first = next(iter(comparison.scores.values()))
    titles = {key: f"F1 {key.removeprefix('f1/')}" for key in first if key.startswith("f1/")}
    titles |= _SHOWN
    return {
        "score": list(titles.values()),
        **{
            name: [str(scores[key]) if key in scores else "" for key in titles]
            for name, scores in comparison.scores.items()
        },
    }


def difference_table(comparison: Comparison) -> dict[str, list[Any]]:
    """Return the differences as columns."""
    differences = comparison.differences
    return {
        "comparison": [f"{d.second} - {d.first}" for d in differences],
        PRIMARY_TITLE: [f"{d.difference.value:+.3f}" for d in differences],
        "95 % interval": [
            f"{d.difference.low:+.3f} to {d.difference.high:+.3f}" for d in differences
        ],
        "p": [round(d.p_value, 4) for d in differences],
        "p (Holm)": [round(d.adjusted_p_value, 4) for d in differences],
        "documents better, worse": [f"{d.sign.more}, {d.sign.fewer}" for d in differences],
        "p (sign test)": [round(d.sign.p_value, 4) for d in differences],
        "verdict": [d.verdict for d in differences],
    }


def print_comparison(comparison: Comparison) -> None:
    """Print the scores of every model as a table, and the comparison in words below it."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 120)
    table = Table(
        title=f"{comparison.data}: {comparison.rows} sentences in {comparison.documents} "
        f"documents, 95 % intervals"
    )
    columns = score_table(comparison)
    for name in columns:
        table.add_column(name)
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    console.print(table)
    for line in describe(comparison):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place and rename it, so that it appears whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}-", delete=False
        ) as stream:
            stream.write(text)
        Path(stream.name).chmod(0o644)
        Path(stream.name).replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
