"""What is wrong with a labelled corpus: what must be mended, and what somebody should look at.

A sentence that stands in two splits, or nearly so, makes every score a lie, and a line that cannot
be read is lost: these must be mended. Suspected label errors, labels that disagree with a cue rule
and copies within a split are for a reader to judge.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stance.codebook import Codebook
from stance.corpus.examples import (
    Columns,
    Example,
    encode_labels,
    names_of_files,
    normal_form,
    survey_file,
)
from stance.corpus.near import THRESHOLD, near_pairs
from stance.cues import CueMatcher

BAD_LINE = "bad line"
ID_TWICE = "id in two files"
GROUP_PARTED = "group in two splits"
DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near-duplicate"
CUE = "label disagrees with a cue rule"
LABEL_ERROR = "suspected label error"

_SHOWN = 100
_QUANTILES = (0, 5, 25, 50, 75, 95, 100)


@dataclass(frozen=True)
class Finding:
    """Something found: of which kind, at which `file:line`s, and what it is.

    `score` orders the findings of one kind, those first that are most likely mistakes.
    """

    kind: str
    places: tuple[str, ...]
    detail: str
    must_fix: bool = False
    score: float = 0.0


@dataclass(frozen=True)
class Located:
    """An example, its split, and where it stands as `file:line`."""

    example: Example
    split: str
    place: str


@dataclass(frozen=True)
class Corpus:
    """All examples of all splits that could be read, and what was found while reading."""

    examples: tuple[Located, ...]
    codebook: Codebook
    findings: tuple[Finding, ...]

    @property
    def texts(self) -> list[str]:
        """The sentences."""
        return [located.example.text for located in self.examples]

    @property
    def gold(self) -> NDArray[np.int8]:
        """The labels as a 0/1 matrix of shape (n, labels)."""
        return encode_labels([located.example.labels for located in self.examples], self.codebook)


@dataclass(frozen=True)
class CueRecord:
    """How often a cue rule fired, and how often the sentence bore its label."""

    cue: str
    rule: int
    fired: int
    right: int


@dataclass(frozen=True)
class SplitProfile:
    """One split in numbers: sentences, groups, label and label set counts, words per sentence."""

    sentences: int
    groups: int
    labels: Mapping[str, int]
    label_sets: Mapping[str, int]
    words: Mapping[int, float] = field(default_factory=dict)


def read_located(
    files: Mapping[str, Sequence[Path]], codebook: Codebook, columns: Columns | None = None
) -> Corpus:
    """Read the files of every split to the end, whatever is wrong with single lines.

    Raises:
        UserError: a file cannot be read at all.
    """
    found: list[Located] = []
    findings: list[Finding] = []
    ids: dict[str, str] = {}
    groups: dict[str, Located] = {}
    names = names_of_files(files)
    for split, paths in files.items():
        for path in paths:
            examples, wrong = survey_file(path, codebook, columns, source=names[path])
            findings.extend(Finding(BAD_LINE, (), message, must_fix=True) for message in wrong)
            for example, line in examples:
                here = Located(example, split, f"{path}:{line}")
                first = ids.setdefault(example.id, here.place)
                if first != here.place:
                    detail = f"the id {example.id!r}"
                    findings.append(Finding(ID_TWICE, (first, here.place), detail, must_fix=True))
                other = groups.setdefault(example.group, here)
                if other.split != split:
                    detail = f"the group {example.group!r} is in {other.split} and {split}"
                    places = (other.place, here.place)
                    findings.append(Finding(GROUP_PARTED, places, detail, must_fix=True))
                found.append(here)
    return Corpus(tuple(found), codebook, tuple(findings))


def find_copies(corpus: Corpus, threshold: float = THRESHOLD) -> list[Finding]:
    """Find sentences that stand twice, or nearly: in two splits, two groups, or within a group.

    Near-duplicates within one group are meant to be there (minimal pairs) and are not reported.
    """
    by_form: defaultdict[str, list[int]] = defaultdict(list)
    for position, text in enumerate(corpus.texts):
        by_form[normal_form(text)].append(position)
    findings = []
    for positions in by_form.values():
        first = corpus.examples[positions[0]]
        for position in positions[1:]:
            findings.append(_copy(DUPLICATE, first, corpus.examples[position], 1.0))
    firsts = [positions[0] for positions in by_form.values()]
    for pair in near_pairs([corpus.examples[p].example.text for p in firsts], threshold):
        first, second = corpus.examples[firsts[pair.first]], corpus.examples[firsts[pair.second]]
        if first.example.group != second.example.group or first.split != second.split:
            findings.append(_copy(NEAR_DUPLICATE, first, second, pair.similarity))
    return sorted(findings, key=lambda finding: not finding.must_fix)


def cue_records(corpus: Corpus) -> tuple[list[CueRecord], list[Finding]]:
    """Hold every label against the cue rules: how each rule fares, and each disagreement."""
    matcher = CueMatcher(corpus.codebook)
    rules = {
        f"{label.name}/{cue.name}": cue.rule
        for label in corpus.codebook.labels
        for cue in label.cues
    }
    fired: Counter[str] = Counter()
    right: Counter[str] = Counter()
    wrong: list[tuple[Located, str, str]] = []
    for located in corpus.examples:
        cues = matcher.find(located.example.text)
        counting = {f"{cue.label}/{cue.name}": cue for cue in cues if cue.blocked is None}
        for name, cue in counting.items():
            fired[name] += 1
            if cue.label in located.example.labels:
                right[name] += 1
            else:
                wrong.append((located, name, f"{cue.text!r} reports {cue.label}, not labelled"))
        for label in located.example.labels:
            own = [cue for cue in cues if cue.label == label]
            if own and all(cue.blocked for cue in own):
                name, why = f"{label}/{own[0].name}", own[0].blocked
                wrong.append((located, name, f"labelled {label}, but {own[0].text!r} is {why}"))
    findings = [
        Finding(
            CUE,
            (located.place,),
            f"{detail} (rule {rules[name]}): {located.example.text[:_SHOWN]}",
            score=right[name] / fired[name] if fired[name] else 0.0,
        )
        for located, name, detail in wrong
    ]
    records = [CueRecord(name, rules[name], fired[name], right[name]) for name in rules]
    return records, sorted(findings, key=lambda finding: -finding.score)


def find_label_errors(corpus: Corpus, probabilities: NDArray[np.float64]) -> list[Finding]:
    """Suspect labels that a classifier which never saw the sentence firmly contradicts.

    Args:
        corpus: the examples.
        probabilities: out-of-fold probabilities, shape (n, labels).

    Confident learning (Northcutt et al. 2021) decides how firm is firm, for each label by itself.
    """
    gold, names = corpus.gold, corpus.codebook.names
    if corpus.codebook.multi_label:
        suspects = _per_label(gold, probabilities)
    else:
        suspects = _exclusive(gold, probabilities)
    findings = []
    for row, column in suspects:
        located, p = corpus.examples[row], float(probabilities[row, column])
        given = "labelled" if gold[row, column] else "not labelled"
        detail = f"{given} {names[column]}, probability {p:.2f}: {located.example.text[:_SHOWN]}"
        score = abs(float(gold[row, column]) - p)
        findings.append(Finding(LABEL_ERROR, (located.place,), detail, score=score))
    return sorted(findings, key=lambda finding: -finding.score)


def profile(corpus: Corpus) -> dict[str, SplitProfile]:
    """Count sentences, groups, labels, label sets and lengths of every split."""
    splits: defaultdict[str, list[Example]] = defaultdict(list)
    for located in corpus.examples:
        splits[located.split].append(located.example)
    return {
        split: SplitProfile(
            sentences=len(examples),
            groups=len({example.group for example in examples}),
            labels={
                name: sum(name in example.labels for example in examples)
                for name in corpus.codebook.names
            },
            label_sets=dict(
                Counter(corpus.codebook.show(example.labels) for example in examples).most_common()
            ),
            words={
                quantile: float(np.percentile([len(e.text.split()) for e in examples], quantile))
                for quantile in _QUANTILES
            },
        )
        for split, examples in splits.items()
    }


def _copy(kind: str, first: Located, second: Located, alike: float) -> Finding:
    if first.split != second.split:
        where = f"in {first.split} and {second.split}"
    elif first.example.group != second.example.group:
        where = f"in two groups of {first.split}"
    else:
        where = f"in one group of {first.split}"
    labels = "" if first.example.labels == second.example.labels else ", labelled differently"
    detail = f"{where}{labels}, alike {alike:.2f}: {second.example.text[:_SHOWN]}"
    parted = first.split != second.split
    return Finding(kind, (first.place, second.place), detail, must_fix=parted, score=alike)


def _per_label(
    gold: NDArray[np.int8], probabilities: NDArray[np.float64]
) -> Iterator[tuple[int, int]]:
    from cleanlab.filter import find_label_issues

    for column in range(gold.shape[1]):
        given, p = gold[:, column].astype(int), probabilities[:, column]
        if given.min() == given.max():
            continue
        suspected = find_label_issues(given, np.column_stack([1 - p, p]), n_jobs=1)
        for row in np.flatnonzero(suspected):
            yield int(row), column


def _exclusive(
    gold: NDArray[np.int8], probabilities: NDArray[np.float64]
) -> Iterator[tuple[int, int]]:
    from cleanlab.filter import find_label_issues

    given = gold.argmax(axis=1)
    shares = probabilities / np.maximum(probabilities.sum(axis=1, keepdims=True), 1e-9)
    for row in np.flatnonzero(find_label_issues(given, shares, n_jobs=1)):
        yield int(row), int(given[row])
