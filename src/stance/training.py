"""The story of a training run: read, learn, decide, judge, save, record."""

import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import OmegaConf

from stance.classifiers.base import Classifier
from stance.classifiers.build import build_classifier
from stance.codebook import NONE, Codebook
from stance.config import DataConfig, TrainConfig, TransformerConfig, columns_of, parameters
from stance.corpus.examples import (
    Split,
    check_learnable,
    check_scorable,
    read_corpus,
    sentence_key,
)
from stance.decision import MAX_F1, Decision, fit_decision
from stance.errors import UserError
from stance.evaluation import plots
from stance.evaluation.behaviour import (
    ALL,
    Case,
    Outcome,
    failures,
    pass_rates,
    pass_rates_by_rule,
    read_suite,
    run_suite,
)
from stance.evaluation.card import EXAMPLE, RELIABILITY, CardFacts, model_card
from stance.evaluation.metrics import PRIMARY, Interval, Judged, score
from stance.evaluation.paired import PRIMARY_TITLE
from stance.exports import speed_up
from stance.model import CHAMPION, StanceModel, place_for
from stance.sweeps import claim_name, summarize_sweep
from stance.tracking import KIND, DataSource, Run, open_store, start_run, sweep_parent

logger = logging.getLogger(__name__)

_WORST = 200


@dataclass(frozen=True)
class TrainingResult:
    """Where the trained model lies and what it scored: split name to scores."""

    directory: Path
    scores: dict[str, dict[str, Interval]]


def train(config: TrainConfig, sweep: str | None = None) -> TrainingResult:
    """Train one classifier, judge it on the splits asked for, and save and record it.

    Args:
        config: the run's settings.
        sweep: folder of the sweep that this run is a part of; its runs share a parent.

    Raises:
        UserError: the corpus, the checkpoint or a setting cannot be used, or another run of the
            sweep bears this name.
    """
    codebook = Codebook.from_mapping(config.codebook, "codebook")
    corpus = read_splits(config.data, codebook)
    check_learnable(corpus["train"])
    for name in config.evaluate_on:
        if name not in corpus:
            raise UserError(f"evaluate_on: {name!r}: data.{name} names no file")
        check_scorable(corpus[name], f"data.{name}")
    check_decidable(corpus["validation"], config.decision.operating_point)
    cases = read_suite(Path(config.behaviour), codebook) if config.behaviour else []
    limit_threads(config.threads)
    classifier = build_classifier(config.model, codebook, config.seed)
    directory = place_for(Path(config.models_dir), config.name)
    settings = yaml.safe_dump(OmegaConf.to_container(OmegaConf.structured(config)))
    if sweep:
        claim_name(config.name, settings, Path(sweep))
    for split in corpus.values():
        logger.info("%s: %d sentences, %s", split.name, len(split), _counts(split))

    store = open_store(config.tracking, config.models_dir)
    parent = sweep_parent(store, sweep) if sweep else None
    tags = {KIND: "train", "stance.model_dir": str(directory)}
    with start_run(store, config.name, tags=tags, parent=parent) as run:
        run.log_parameters(parameters(config))
        run.log_text(settings, "config.yaml")
        for split in corpus.values():
            run.log_data(data_source(split, config.data))

        history = History(run)
        classifier.fit(corpus["train"], corpus["validation"], history)
        if history.has_epochs:
            run.log_figure(plots.learning_curve(history.metrics), "learning_curve.png")
        validation = corpus["validation"]
        decision = fit_decision(
            classifier.predict_proba(validation.texts),
            validation.gold,
            validation.groups,
            codebook,
            operating_point=config.decision.operating_point,
            methods=config.decision.calibration,
            band=config.decision.band,
        )
        learnt_from = (*corpus["train"].texts, *validation.texts)
        seen = frozenset(map(sentence_key, learnt_from))
        model = StanceModel(config.name, classifier, decision, codebook, seen=seen)
        scores, judged = {}, {}
        for name in config.evaluate_on:
            judged[name] = model.judge(corpus[name])
            scores[name] = score(judged[name], resamples=config.resamples, seed=config.seed)
            record_judgement(run, name, corpus[name], judged[name], scores[name], decision)
            logger.info("%s: %s %s", name, PRIMARY, scores[name][PRIMARY])

        outcomes = check_behaviour(model, cases, run)

        model.record = model_record(config, run, corpus, scores, outcomes)
        card = CardFacts(
            name=config.name,
            kind=classifier.kind,
            codebook=codebook,
            decision=decision,
            scores=scores,
            judged=judged,
            outcomes=outcomes,
            record=model.record,
            learnt_from=config.data.train,
            prepared=prepared_example(classifier),
        )
        pictures = {}
        if judged:
            last = judged[config.evaluate_on[-1]]
            pictures[RELIABILITY] = plots.png(plots.reliability(last))
        model.save(directory, model_card(card), pictures)
        if isinstance(config.model, TransformerConfig) and config.model.export:
            model.digest, measured = speed_up(directory, corpus["train"], validation)
            for figures in measured:
                logger.info("%s", figures)
        run.set_tags({"stance.model_digest": model.digest})
        run.describe(summary(directory, scores, outcomes))
    if parent:
        try:
            summarize_sweep(store, parent)
        except UserError as error:  # the model is there all the same
            logger.warning("no summary of the sweep: %s", error)
    logger.info("saved %s (%s)", directory, model.digest[:12])
    alias = Path(config.models_dir) / CHAMPION
    if alias.is_symlink() and alias.resolve() == directory.resolve():
        logger.warning(
            "%s was replaced by this model, which no gate has judged; "
            "`python evaluate.py models=[%s] data=FILE promote=true` judges it",
            alias,
            directory,
        )
    if run.address:
        logger.info("recorded as %s", run.address)
    return TrainingResult(directory, scores)


def model_record(
    config: TrainConfig,
    run: Run,
    corpus: Mapping[str, Split],
    scores: Mapping[str, Mapping[str, Interval]],
    outcomes: Sequence[Outcome],
) -> dict[str, Any]:
    """Return how a model came about and what it scored, as plain values that it is saved with."""
    return {
        "run": run.id,
        "seed": config.seed,
        "data": {
            split.name: {
                "rows": len(split),
                "documents": len(set(split.groups)),
                "labels": dict(
                    zip(split.codebook.names, split.gold.sum(axis=0).tolist(), strict=True)
                ),
                "digest": split.digest,
            }
            for split in corpus.values()
        },
        "scores": {
            name: {key: [v.value, v.low, v.high] for key, v in values.items()}
            for name, values in scores.items()
        },
        "behaviour": {name: vars(rate) for name, rate in pass_rates(outcomes).items()},
        "behaviour_by_rule": {
            str(rule): vars(rate) for rule, rate in pass_rates_by_rule(outcomes).items()
        },
        "parameters": parameters(config),
        "versions": versions(),
    }


def read_splits(data: DataConfig, codebook: Codebook) -> dict[str, Split]:
    """Read the three splits that a data config names."""
    files = {
        name: [Path(path) for path in paths]
        for name, paths in (
            ("train", data.train),
            ("validation", data.validation),
            ("test", data.test),
        )
        if paths
    }
    for name in ("train", "validation"):
        if name not in files:
            raise UserError(f"data.{name}: name at least one file")
    return read_corpus(files, codebook, columns_of(data))


def data_source(split: Split, data: DataConfig) -> DataSource:
    """Describe a split as an input of a run."""
    files = ", ".join(getattr(data, split.name))
    return DataSource(f"{data.name}-{split.name}", files, split.digest, len(split), split.name)


@dataclass
class History:
    """What a classifier logs while it learns: passed on to the run, and kept for a picture."""

    run: Run
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def __call__(self, metrics: dict[str, float], step: int) -> None:
        """Take the metrics of an epoch."""
        self.run.log_metrics(metrics, step)
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append((step, value))

    @property
    def has_epochs(self) -> bool:
        """Whether there is more than one point to draw."""
        return any(len(points) > 1 for points in self.metrics.values())


def prepared_example(classifier: Classifier) -> str | None:
    """Return the model card's example as an encoder reads it; None for other classifiers."""
    prepare = getattr(classifier, "prepare", None)
    return str(prepare([EXAMPLE])[0]) if prepare else None


def summary(
    directory: Path, scores: Mapping[str, Mapping[str, Interval]], outcomes: Sequence[Outcome]
) -> str:
    """Say in Markdown what a run came to, where its model lies and what to do with it."""
    lines = [f"{split}: {PRIMARY_TITLE} {values[PRIMARY]}" for split, values in scores.items()]
    lines += [f"behaviour: {pass_rates(outcomes)[ALL]} cases kept"] if outcomes else []
    lines.append(f"`python predict.py model={directory} input=ARTICLE.txt`")
    return "\n\n".join(lines)


def record_judgement(
    run: Run,
    name: str,
    split: Split,
    judged: Judged,
    scores: dict[str, Interval],
    decision: Decision,
) -> None:
    """Record scores, pictures and the worst errors of one judged split."""
    metrics = {f"{name}/{key}": interval.value for key, interval in scores.items()}
    bounds = {
        f"{name}/{key}/{bound}": getattr(interval, bound)
        for key, interval in scores.items()
        if key == PRIMARY or key.startswith("f1/")
        for bound in ("low", "high")
    }
    run.log_metrics({**metrics, **bounds})
    intervals = {"score": list(scores), "95 % interval": [str(v) for v in scores.values()]}
    run.log_table(intervals, f"{name}/scores.json")
    run.log_figure(plots.precision_recall(judged), f"{name}/precision_recall.png")
    run.log_figure(plots.reliability(judged), f"{name}/reliability.png")
    if decision.multi_label:
        chosen = decision.thresholds().tolist()
        run.log_figure(plots.thresholds(judged, chosen), f"{name}/thresholds.png")
    run.log_figure(plots.label_set_confusion(judged), f"{name}/label_sets.png")
    run.log_table(worst_errors(split, judged), f"{name}/worst_errors.json")


def check_behaviour(model: StanceModel, cases: Sequence[Case], run: Run) -> list[Outcome]:
    """Run a behaviour suite; record pass rates by construct and by rule, and the failures."""
    if not cases:
        return []
    outcomes = run_suite(model.label, cases, model.codebook)
    rates = pass_rates(outcomes)
    by_rule = {f"rule/{rule:02}": rate for rule, rate in pass_rates_by_rule(outcomes).items()}
    run.log_metrics({f"behaviour/{name}": rate.rate for name, rate in {**rates, **by_rule}.items()})
    run.log_figure(plots.behaviour(rates), "behaviour/pass_rates.png")
    run.log_table(failures(outcomes), "behaviour/failures.json")
    logger.info("behaviour: %s cases kept", rates[ALL])
    return outcomes


def worst_errors(split: Split, judged: Judged) -> dict[str, list[Any]]:
    """List the wrong sentences, those first whose wrong label was held with most confidence."""
    distance = np.abs(judged.probabilities - judged.gold)
    distance[judged.gold == judged.predicted] = 0.0
    order = [row for row in np.argsort(-distance.max(axis=1), kind="stable") if distance[row].any()]
    rows = order[:_WORST]
    gold, predicted = (
        plots.label_sets(judged.gold, judged),
        plots.label_sets(judged.predicted, judged),
    )
    table: dict[str, list[Any]] = {
        "id": [split.examples[row].id for row in rows],
        "text": [split.texts[row] for row in rows],
        "gold": [gold[row] for row in rows],
        "predicted": [predicted[row] for row in rows],
    }
    for column, label in enumerate(judged.names):
        table[f"p_{label}"] = [round(float(judged.probabilities[row, column]), 4) for row in rows]
    return table


def check_decidable(validation: Split, point: str) -> None:
    """Hold, before any work, that thresholds can be chosen on validation.

    Raises:
        UserError: a label has no positive example there, or labels that exclude each other are to
            be cut at thresholds.
    """
    codebook = validation.codebook
    if not codebook.multi_label:
        if point != MAX_F1:
            raise UserError(
                f"decision.operating_point: {point!r}: the single-label codebook "
                f"{codebook.name!r} takes the most probable label; only {MAX_F1!r} applies"
            )
        return
    for name, count in zip(codebook.names, validation.gold.sum(axis=0), strict=True):
        if not count:
            raise UserError(f"data.validation: the label {name!r} has no positive example")


def limit_threads(threads: int) -> None:
    """Set the number of threads of the numeric libraries; 0 leaves it to them.

    It is set through the environment before torch is imported, and on torch if it already is.
    """
    import os
    import sys

    if not threads:
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


def versions() -> dict[str, str]:
    """Return the versions of what decides a result."""
    packages = ("stance", "torch", "transformers", "scikit-learn", "numpy", "datasets")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def _counts(split: Split) -> str:
    counts = dict(zip(split.codebook.names, split.gold.sum(axis=0), strict=True))
    if split.codebook.multi_label:
        counts[NONE] = np.sum(~split.gold.any(axis=1))
    return ", ".join(f"{name} {count}" for name, count in counts.items())
