"""Where a model fails: errors with the words behind them, doubtful gold labels, scores by slice.

A score says how often a model errs; what to do about it stands in the sentences. Errors that look
like the annotator's are kept apart by confident learning (Northcutt, Jiang and Chuang 2021, through
cleanlab): a label is suspected where the models together contradict it with more confidence than
they have in that label elsewhere.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stance.corpus.examples import Split, decode_labels
from stance.cues import Cue, CueMatcher
from stance.evaluation.metrics import Interval, Judged, score

Explain = Callable[[str, str], Sequence[tuple[str, float]]]
"""From a sentence and a label to the words with what each added to the label's score."""

FEW_VALUES = 30
"""A metadata field with more values than this names rows rather than kinds of row."""

FEW_ROWS = 10
"""Slices smaller than this are left out: their scores say nothing."""

FEW_DOCUMENTS = 10
"""The bootstrap over fewer documents than this gives no interval worth showing."""

EXPLAINED = 100
"""Errors that are explained, the most confident first; the others are listed without words."""

WORDS = "words"
_LENGTHS = {"up to 15": 15, "16 to 30": 30, "31 or more": 10**9}
_MOST_SUSPECTED = 0.5
_SLICE_RESAMPLES = 500


@dataclass(frozen=True)
class WrongLabel:
    """A label that a sentence should have got and did not (`missed`), or the reverse."""

    label: str
    missed: bool
    probability: float
    words: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Error:
    """A sentence whose label set a model gets wrong; `suspected` where gold is in doubt."""

    id: str
    text: str
    gold: tuple[str, ...]
    predicted: tuple[str, ...]
    probabilities: tuple[tuple[str, float], ...]
    wrong: tuple[WrongLabel, ...]
    cues: tuple[Cue, ...]
    suspected: bool

    @property
    def distance(self) -> float:
        """How far the worst probability lies from gold: the model's confidence in its error."""
        return max(w.probability if not w.missed else 1 - w.probability for w in self.wrong)


@dataclass(frozen=True)
class Slice:
    """The scores of the rows that share one value of a field."""

    field: str
    value: str
    rows: int
    documents: int
    positives: int
    f1_micro: Interval | None
    exact_match: Interval

    @property
    def few_documents(self) -> bool:
        """Whether the documents are too few for their intervals to mean anything."""
        return self.documents < FEW_DOCUMENTS


@dataclass(frozen=True)
class Analysis:
    """The errors of one model on one file, the most confident first, and its scores by slice."""

    errors: tuple[Error, ...]
    slices: tuple[Slice, ...]

    @property
    def suspected(self) -> tuple[Error, ...]:
        """The errors that may be the annotator's."""
        return tuple(error for error in self.errors if error.suspected)

    @property
    def certain(self) -> tuple[Error, ...]:
        """The other errors."""
        return tuple(error for error in self.errors if not error.suspected)


def analyse(
    split: Split, judged: Judged, explain: Explain, suspects: Collection[int] = ()
) -> Analysis:
    """Find a model's errors on a judged split, explain the most confident, and score slices.

    Args:
        split: the sentences.
        judged: what the model said of them.
        explain: says which words moved a label of the model.
        suspects: rows whose gold is in doubt, from `suspected_labels`.
    """
    errors = list_errors(split, judged, suspects)
    matcher = CueMatcher(split.codebook)
    explained = [
        replace(
            error,
            cues=tuple(matcher.find(error.text)),
            wrong=tuple(replace(w, words=tuple(explain(error.text, w.label))) for w in error.wrong),
        )
        for error in errors[:EXPLAINED]
    ]
    return Analysis((*explained, *errors[EXPLAINED:]), tuple(slices(split, judged)))


def list_errors(split: Split, judged: Judged, suspects: Collection[int] = ()) -> list[Error]:
    """List the sentences with a wrong label set, the most confident error first."""
    gold = decode_labels(judged.gold, split.codebook)
    predicted = decode_labels(judged.predicted, split.codebook)
    errors = []
    for row in np.flatnonzero((judged.gold != judged.predicted).any(axis=1)).tolist():
        wrong = tuple(
            WrongLabel(name, bool(judged.gold[row, i]), float(judged.probabilities[row, i]))
            for i, name in enumerate(judged.names)
            if judged.gold[row, i] != judged.predicted[row, i]
        )
        errors.append(
            Error(
                id=split.examples[row].id,
                text=split.texts[row],
                gold=gold[row],
                predicted=predicted[row],
                probabilities=tuple(
                    zip(judged.names, judged.probabilities[row].tolist(), strict=True)
                ),
                wrong=wrong,
                cues=(),
                suspected=row in suspects,
            )
        )
    return sorted(errors, key=lambda error: (-error.distance, error.id))


def suspected_labels(judged: Sequence[Judged], multi_label: bool) -> list[int]:
    """Return the rows whose gold label set is in doubt, the most doubtful first.

    The probabilities are the mean over all models that judged the rows. Where they would put most
    errors down to the annotator they cannot tell the two apart, and nothing is suspected.
    """
    from cleanlab.filter import find_label_issues

    gold = judged[0].gold.astype(bool)
    if not gold.any():
        return []
    rows = find_label_issues(
        labels=[np.flatnonzero(row).tolist() for row in gold]
        if multi_label
        else gold.argmax(axis=1),
        pred_probs=np.mean([j.probabilities for j in judged], axis=0),
        multi_label=multi_label,
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    wrong = np.any([(j.gold != j.predicted).any(axis=1) for j in judged], axis=0)
    return rows.tolist() if len(rows) <= _MOST_SUSPECTED * wrong.sum() else []


def slices(split: Split, judged: Judged) -> Iterator[Slice]:
    """Score the rows by every metadata field of few values, by length and by number of labels."""
    for name, values in _fields(split).items():
        counts = {value: values.count(value) for value in dict.fromkeys(values)}
        if not 1 < len(counts) <= FEW_VALUES:
            continue
        by_size = sorted(counts, key=lambda value: (-counts[value], value))
        for value in _LENGTHS if name == WORDS else by_size:
            if counts.get(value, 0) < FEW_ROWS:
                continue
            part = judged.select(np.array([found == value for found in values]))
            scores = score(part, resamples=_SLICE_RESAMPLES)
            yield Slice(
                field=name,
                value=value,
                rows=counts[value],
                documents=part.group_index[0],
                positives=int(part.gold.sum()),
                f1_micro=scores.get("f1_micro"),
                exact_match=scores["exact_match"],
            )


def _fields(split: Split) -> dict[str, list[str]]:
    """Return the value of every row for each field: text, truth value or whole number."""
    fields = {
        WORDS: [_length(len(text.split())) for text in split.texts],
        "gold labels": [str(len(example.labels)) for example in split.examples],
    }
    names = dict.fromkeys(name for example in split.examples for name in example.metadata)
    for name in names:
        values = [example.metadata.get(name, "") for example in split.examples]
        if all(isinstance(value, str | int) for value in values):
            fields[name] = [str(value) or "(none)" for value in values]
    return fields


def _length(words: int) -> str:
    return next(name for name, longest in _LENGTHS.items() if words <= longest)
