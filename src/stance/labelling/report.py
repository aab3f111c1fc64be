"""How voters fare: the table by which weak supervision is judged, and the label model on gold."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from stance.codebook import Codebook
from stance.config import LabelConfig, columns_of
from stance.corpus.examples import encode_labels, read_split
from stance.errors import UserError
from stance.labelling.aggregate import NO, SILENT, YES, Votes
from stance.labelling.agreement import alpha
from stance.labelling.screen import open_console
from stance.labelling.suggesting import build_voters, read_model, read_pool
from stance.labelling.voters import Suggestions, suggest


@dataclass(frozen=True)
class Fare:
    """How one voter fares on one label; the last two are None where nothing can be said."""

    voter: str
    label: str
    rule: int | None
    coverage: float
    overlap: float
    conflict: float
    learnt: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Report:
    """How all voters fare on the articles, and the label model on gold, as {label: alpha}."""

    sentences: int
    fares: list[Fare]
    rates: dict[str, float]
    alphas: dict[str, float]
    gold_rows: int


def report_voters(config: LabelConfig) -> Report:
    """Say how each voter fares on the articles, and how right it is where gold exists.

    Raises:
        UserError: the input, the gold file, a model or a setting cannot be used.
    """
    codebook = Codebook.from_mapping(config.codebook, "codebook")
    voters = build_voters(config, codebook, read_model(config, codebook))
    texts = read_pool(config, codebook).kept_texts if config.input else []
    gold_texts, gold = _gold(config, codebook)
    if not texts and not gold_texts:
        raise UserError("report: no sentence to vote on; name articles (input=) or gold (gold=)")
    on_gold = [voter.vote(gold_texts) for voter in voters]
    # Fitted as for a queue: labels are not as frequent in gold, which would bend the rates.
    counted = suggest([voter.vote(texts) for voter in voters] if texts else on_gold, codebook)
    judged = suggest(on_gold, codebook, counted.models)
    predicted = encode_labels(judged.label_sets, codebook)
    return Report(
        sentences=len(counted.probabilities),
        fares=list(_fares(counted, judged, gold)),
        rates=dict(zip(codebook.names, counted.probabilities.mean(axis=0).tolist(), strict=True)),
        alphas=_alphas(gold, predicted, codebook) if len(gold) else {},
        gold_rows=len(gold),
    )


def print_report(report: Report) -> None:
    """Print one row per voter and label, then the label model."""
    console = open_console()
    table = Table(title=f"voters on {report.sentences:,} sentences", title_justify="left")
    for name in ("voter", "label", "rule", "coverage", "overlap", "conflict", "learnt", "accuracy"):
        table.add_column(name, justify="left" if name in ("voter", "label") else "right")
    for fare in report.fares:
        table.add_row(
            fare.voter,
            fare.label,
            "" if fare.rule is None else str(fare.rule),
            *(f"{share:.3f}" for share in (fare.coverage, fare.overlap, fare.conflict)),
            *("" if share is None else f"{share:.2f}" for share in (fare.learnt, fare.accuracy)),
        )
    console.print(table)
    console.print("coverage: the voter speaks; overlap: another speaks too; conflict: one of them")
    console.print("contradicts it; learnt: accuracy where it speaks, by the label model; accuracy:")
    console.print(f"the same on the {report.gold_rows:,} sentences of gold")
    shown = ", ".join(f"{name} {rate:.3f}" for name, rate in report.rates.items())
    console.print(f"expected rates: {shown}")
    if report.alphas:
        shown = ", ".join(f"{name} {value:.3f}" for name, value in report.alphas.items())
        console.print(f"label model beside gold, Krippendorff's alpha: {shown}")


def _gold(config: LabelConfig, codebook: Codebook) -> tuple[list[str], NDArray[np.int8]]:
    files = [Path(config.gold)] if config.gold else [Path(path) for path in config.data.test]
    columns = columns_of(config.data)
    splits = [read_split(path, "gold", codebook, columns) for path in files]
    if not splits:
        return [], np.empty((0, len(codebook.names)), dtype=np.int8)
    return [t for split in splits for t in split.texts], np.vstack([s.gold for s in splits])


def _fares(counted: Suggestions, judged: Suggestions, gold: NDArray[np.int8]) -> Iterator[Fare]:
    for number, (ballot, on_gold) in enumerate(zip(counted.ballots, judged.ballots, strict=True)):
        for column, (voter, label) in enumerate(zip(ballot.voters, ballot.labels, strict=True)):
            index = counted.codebook.names.index(label)
            votes = ballot.votes[:, column]
            others = _others(counted, label, number, column)
            spoken = votes != SILENT
            against = np.where(votes == YES, NO, YES)[:, np.newaxis]
            yield Fare(
                voter=voter,
                label=label,
                rule=ballot.rules[column],
                coverage=_share(spoken),
                overlap=_share(spoken & (others != SILENT).any(axis=1)),
                conflict=_share(spoken & (others == against).any(axis=1)),
                learnt=_right(votes, counted.probabilities[:, index]),
                accuracy=_accuracy(on_gold.votes[:, column], gold[:, index]),
            )


def _others(suggestions: Suggestions, label: str, number: int, column: int) -> Votes:
    """Return the answers about a label of all voters but one, shape (n, voters)."""
    columns = [
        ballot.votes[:, other]
        for place, ballot in enumerate(suggestions.ballots)
        for other, name in enumerate(ballot.labels)
        if name == label and (place, other) != (number, column)
    ]
    nobody = np.full((len(suggestions.probabilities), 1), SILENT, dtype=np.int8)
    return np.column_stack([nobody, *columns])


def _right(votes: Votes, probabilities: NDArray[np.float64]) -> float | None:
    """Return how often a voter is right where it speaks, if the label model is."""
    right = np.where(votes == YES, probabilities, 1 - probabilities)[votes != SILENT]
    return float(right.mean()) if right.size else None


def _accuracy(votes: Votes, gold: NDArray[np.int8]) -> float | None:
    spoken = votes != SILENT
    return float((votes[spoken] == gold[spoken]).mean()) if spoken.any() else None


def _share(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if flags.size else 0.0


def _alphas(
    gold: NDArray[np.int8], predicted: NDArray[np.int8], codebook: Codebook
) -> dict[str, float]:
    alphas = {
        name: alpha(np.stack([gold[:, column], predicted[:, column]], axis=1))
        for column, name in enumerate(codebook.names)
    }
    together = np.stack([gold.ravel(), predicted.ravel()], axis=1)
    return {**alphas, "all": alpha(together)}
