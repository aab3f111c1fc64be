"""Check a labelled corpus and say what must be mended and what somebody should look at."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from stance.classifiers.base import Probabilities
from stance.classifiers.tfidf import TfidfClassifier
from stance.codebook import NONE, Codebook
from stance.config import DataConfig, LabelConfig, columns_of
from stance.corpus.examples import Split
from stance.corpus.quality import (
    Corpus,
    CueRecord,
    Finding,
    SplitProfile,
    cue_records,
    find_copies,
    find_label_errors,
    profile,
    read_located,
)
from stance.errors import UserError
from stance.labelling.files import distinct, paths_of, write_rows
from stance.labelling.screen import open_console

SHIPPED = "true"
_LISTED = 12
_CUES_LISTED = 10
_MIN_FOLD = 2


@dataclass(frozen=True)
class Quality:
    """What a check found."""

    findings: tuple[Finding, ...]
    cues: tuple[CueRecord, ...]
    profiles: Mapping[str, SplitProfile]
    codebook: Codebook

    @property
    def must_fix(self) -> list[Finding]:
        """The findings that must be mended."""
        return [finding for finding in self.findings if finding.must_fix]


def check(config: LabelConfig) -> Quality:
    """Check labelled files, each one a split, or the splits of `data`.

    Raises:
        UserError: a file cannot be read, or the output cannot be written.
    """
    codebook = Codebook.from_mapping(config.codebook, "codebook")
    corpus = read_located(files_to_check(config), codebook, columns_of(config.data))
    cues, against_cues = cue_records(corpus)
    findings = [*corpus.findings, *find_copies(corpus, config.choose.near), *against_cues]
    groups = {located.example.group for located in corpus.examples}
    if len(groups) >= max(config.folds, _MIN_FOLD):
        probabilities = out_of_fold(corpus, config.folds, config.seed)
        findings += find_label_errors(corpus, probabilities)
    quality = Quality(tuple(findings), tuple(cues), profile(corpus), codebook)
    if config.output:
        write_rows(Path(config.output), map(vars, quality.findings), replace=False)
    return quality


def files_to_check(config: LabelConfig) -> dict[str, list[Path]]:
    """Return the files of every split that a check is asked for.

    Raises:
        UserError: there are none.
    """
    if config.check == SHIPPED:
        if not (files := splits_of(config.data)):
            raise UserError(f"check: {SHIPPED}: data={config.data.name} names no file")
        return files
    paths = distinct(paths_of("check", config.check), attrgetter("stem"))
    return {name: [path] for name, path in paths.items()}


def splits_of(data: DataConfig) -> dict[str, list[Path]]:
    """Return the files of the splits that a data config names."""
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: [Path(path) for path in paths] for name, paths in splits.items() if paths}


def out_of_fold(corpus: Corpus, folds: int, seed: int) -> Probabilities:
    """Return TF-IDF probabilities of every sentence from a fit without its group."""
    groups = sorted({located.example.group for located in corpus.examples})
    dealt = np.random.default_rng(seed).permutation(len(groups)) % folds
    fold_of = dict(zip(groups, dealt.tolist(), strict=True))
    fold = np.array([fold_of[located.example.group] for located in corpus.examples])
    probabilities = np.zeros((len(fold), len(corpus.codebook.names)))
    for number in range(folds):
        inside = np.flatnonzero(fold == number)
        kept = tuple(corpus.examples[row].example for row in np.flatnonzero(fold != number))
        classifier = TfidfClassifier(corpus.codebook, seed=seed)
        train = Split("train", kept, corpus.codebook)
        classifier.fit(train, train, lambda metrics, step: None)
        texts = [corpus.examples[row].example.text for row in inside]
        probabilities[inside] = classifier.predict_proba(texts)
    return probabilities


def print_quality(quality: Quality) -> None:
    """Print the splits in numbers, the weakest cue rules, and the findings, gravest first."""
    console = open_console()
    print_profiles(quality.profiles, quality.codebook)
    weak = [record for record in quality.cues if record.fired > record.right]
    if weak:
        console.print(_cue_table(weak))
    counts = Counter((not f.must_fix, f.kind) for f in quality.findings)
    for (harmless, kind), count in sorted(counts.items()):
        chosen = [f for f in quality.findings if f.kind == kind and f.must_fix != harmless]
        title = "to look at" if harmless else "must be fixed"
        console.print(Text(f"{title}: {kind}: {count}", style="bold"))
        for finding in chosen[:_LISTED]:
            console.print(Text(f"  {' '.join(finding.places)} {finding.detail}".rstrip()))
        if count > _LISTED:
            console.print(Text(f"  and {count - _LISTED} more; output=FILE.jsonl lists them all"))
    if quality.must_fix:
        console.print(f"refused: {len(quality.must_fix)} findings must be fixed")
    else:
        console.print("nothing must be fixed")


def print_profiles(profiles: Mapping[str, SplitProfile], codebook: Codebook) -> None:
    """Print the splits in numbers: sentences, groups, labels, lengths, label sets."""
    console = open_console()
    console.print(_profile_table(profiles, codebook))
    console.print(_label_set_table(profiles))


def _profile_table(profiles: Mapping[str, SplitProfile], codebook: Codebook) -> Table:
    table = Table(title="splits", title_justify="left")
    names = (*codebook.names, NONE) if codebook.multi_label else codebook.names
    for name in ("split", "sentences", "groups", *names, "words 5-50-95 %"):
        table.add_column(name, justify="left" if name == "split" else "right")
    for name, split in profiles.items():
        counts = {**split.labels, NONE: split.label_sets.get(NONE, 0)}
        labels = [f"{counts[name]} ({counts[name] / split.sentences:.0%})" for name in names]
        words = "-".join(f"{split.words[q]:.0f}" for q in (5, 50, 95))
        table.add_row(name, str(split.sentences), str(split.groups), *labels, words)
    return table


def _label_set_table(profiles: Mapping[str, SplitProfile]) -> Table:
    table = Table(title="label sets", title_justify="left")
    table.add_column("labels")
    for name in profiles:
        table.add_column(name, justify="right")
    sets = dict.fromkeys(s for split in profiles.values() for s in split.label_sets)
    for shown in sets:
        shares = [split.label_sets.get(shown, 0) for split in profiles.values()]
        table.add_row(shown, *map(str, shares))
    return table


def _cue_table(records: Sequence[CueRecord]) -> Table:
    table = Table(title="cue rules that labels most often contradict", title_justify="left")
    for name in ("cue", "rule", "fired", "label given", "precision"):
        table.add_column(name, justify="left" if name == "cue" else "right")
    worst = sorted(records, key=lambda record: record.right - record.fired)
    for record in worst[:_CUES_LISTED]:
        share = record.right / record.fired
        cells = (record.rule, record.fired, record.right, f"{share:.2f}")
        table.add_row(record.cue, *map(str, cells))
    return table
