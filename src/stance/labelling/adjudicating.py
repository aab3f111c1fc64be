"""From several annotators' answers to one corpus: agreement, disputes, a new version.

What annotators agree on is taken; where they part, their majority or a Dawid-Skene model decides,
and a dispute that neither can decide stays out until somebody settles it. So does a sentence that
one annotator alone has answered, unless all are such. A new version is a new file: the sentences of
its base first, then the new ones with who said what, and a record beside it.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, or_
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from stance.codebook import Codebook
from stance.config import LabelConfig, columns_of
from stance.corpus.examples import Example, Split, decode_labels, read_split
from stance.cues import CueMatcher
from stance.errors import UserError
from stance.labelling.additions import additions
from stance.labelling.aggregate import fit_label_model
from stance.labelling.agreement import (
    MISSING,
    Answers,
    Estimate,
    LabelAgreement,
    agree,
)
from stance.labelling.answers import Answer, Reading, Refusal, hold_against_queue
from stance.labelling.files import distinct, paths_of, write_bytes, write_rows
from stance.labelling.formats import AUTO, read_export
from stance.labelling.screen import open_console
from stance.labelling.tasks import Task, read_queue

MAJORITY, DAWID_SKENE = "majority", "dawid_skene"
LABEL_SET = "label set"
_SURE = 0.75
"""A Dawid-Skene probability between this and its mirror image leaves a dispute open."""
_NO_CUE = "no cue"


@dataclass(frozen=True)
class Dispute:
    """A sentence about whose label annotators part, the rules in play, and what was decided.

    `decided` is None where the dispute stays open.
    """

    task: Task
    label: str
    yes: tuple[str, ...]
    no: tuple[str, ...]
    rules: tuple[str, ...]
    decided: bool | None


@dataclass(frozen=True)
class Adjudication:
    """What annotators' answers come to; `adjudicators` answered what was open only.

    `alone` holds the sentences that one annotator has answered, `open` those that wait for a voice.
    """

    codebook: Codebook
    reading: Reading
    annotators: tuple[str, ...]
    adjudicators: tuple[str, ...]
    agreement: Mapping[str, LabelAgreement]
    disputes: tuple[Dispute, ...]
    examples: tuple[Example, ...]
    alone: tuple[Task, ...]
    open: tuple[Task, ...]
    output: Path | None = None
    record: Mapping[str, Any] | None = None


def read_all_answers(config: LabelConfig, codebook: Codebook) -> tuple[list[Task], Reading]:
    """Read a queue and the answers to it; refused entries are written beside the output.

    Raises:
        UserError: a file cannot be read.
    """
    if not config.queue:
        raise UserError("queue: name the queue that was answered, as in queue=queue.jsonl")
    tasks = read_queue(Path(config.queue), codebook)
    entries = {
        name: read_export(path, AUTO, codebook)
        for name, path in _sources("answers", config.answers).items()
    }
    return tasks, hold_against_queue(entries, tasks, codebook, config.annotator)


def adjudicate(config: LabelConfig) -> Adjudication:
    """Measure agreement, settle disputes, and write a new version of the corpus if asked to.

    Raises:
        UserError: a file cannot be read, or the new version stands there already.
    """
    codebook = Codebook.from_mapping(config.codebook, "codebook")
    tasks, reading = read_all_answers(config, codebook)
    if not reading.answers:
        raise UserError(f"answers: {config.answers}: no answer in these files can be used")
    annotators = tuple(sorted({answer.annotator for answer in reading.answers}))
    voices = Counter(answer.id for answer in reading.answers)
    asked = [task for task in tasks if task.id in voices]
    alone = tuple(task for task in asked if voices[task.id] == 1)
    given = {(answer.id, answer.annotator): answer for answer in reading.answers}
    adjudicators = _adjudicators(asked, annotators, given)
    independent = [who for who in annotators if who not in adjudicators]
    agreement = {
        name: agree(said, independent, resamples=config.resamples, seed=config.seed)
        for name, said in _questions(asked, independent, given, codebook).items()
    }
    disputes, examples = settle(asked, annotators, given, codebook, config.adjudication)
    waiting = {dispute.task.id for dispute in disputes if dispute.decided is None}
    if len(alone) < len(asked):  # else one voice for each sentence is how the work was meant
        waiting |= {task.id for task in alone}
    found = Adjudication(
        codebook=codebook,
        reading=reading,
        annotators=annotators,
        adjudicators=adjudicators,
        agreement=agreement,
        disputes=tuple(disputes),
        examples=tuple(example for example in examples if example.id not in waiting),
        alone=alone,
        open=tuple(task for task in asked if task.id in waiting),
    )
    return _write_version(config, found) if config.output else found


def settle(
    tasks: Sequence[Task],
    annotators: Sequence[str],
    given: Mapping[tuple[str, str], Answer],
    codebook: Codebook,
    method: str,
) -> tuple[list[Dispute], list[Example]]:
    """Decide every label of every answered sentence; a sentence with an open dispute is no example.

    A single-label codebook's open disputes are those that leave it without exactly one label. The
    majorities of several labels may come to a set that nobody gave: that stays open, too.
    """
    decided = np.empty((len(tasks), len(codebook.names)))
    for column, label in enumerate(codebook.names):
        decided[:, column] = _decide(_said(tasks, annotators, given, label), method)
    if not codebook.multi_label:
        decided[(decided == 1).sum(axis=1) != 1] = np.nan
    label_sets = decode_labels(decided == 1, codebook)
    if method == MAJORITY:
        for row, task in enumerate(tasks):
            said = {given[task.id, who].labels for who in annotators if (task.id, who) in given}
            if not np.isnan(decided[row]).any() and label_sets[row] not in said:
                decided[row] = np.nan
    matcher = CueMatcher(codebook)
    disputes = [
        dispute
        for row, task in enumerate(tasks)
        for dispute in _disputes(task, annotators, given, codebook, decided[row], matcher)
    ]
    settled = np.flatnonzero(~np.isnan(decided).any(axis=1))
    examples = [
        Example(
            id=task.id,
            text=task.text,
            labels=label_sets[row],
            group=task.document_id or task.id,
            metadata={
                "annotators": {
                    who: list(given[task.id, who].labels)
                    for who in annotators
                    if (task.id, who) in given
                },
                "adjudication": method,
                "document_id": task.document_id,
                "document_key": task.document_key,
                "sentence": task.sentence,
                "start": task.start,
                "end": task.end,
                "chosen_for": task.chosen_for,
            },
        )
        for row, task in ((row, tasks[row]) for row in settled.tolist())
    ]
    return disputes, examples


def _adjudicators(
    tasks: Sequence[Task], annotators: Sequence[str], given: Mapping[tuple[str, str], Answer]
) -> tuple[str, ...]:
    """Return those who were asked what others part about, and nothing that two others agree on.

    Held against those who had parted they would show disagreement however seldom that was.
    """

    def only_open(who: str) -> bool:
        asked = [task for task in tasks if (task.id, who) in given]
        others = [other for other in annotators if other != who]
        said = [
            [given[task.id, other].labels for other in others if (task.id, other) in given]
            for task in asked
        ]
        disputed = [len(set(label_sets)) > 1 for label_sets in said]
        alone = [len(label_sets) == 1 for label_sets in said]
        return len(asked) < len(tasks) and any(disputed) and all(map(or_, disputed, alone))

    return tuple(filter(only_open, annotators))


def _said(
    tasks: Sequence[Task],
    annotators: Sequence[str],
    given: Mapping[tuple[str, str], Answer],
    label: str,
) -> Answers:
    """Return what every annotator said of one label, shape (tasks, annotators)."""
    said = np.full((len(tasks), len(annotators)), MISSING, dtype=np.int8)
    for row, task in enumerate(tasks):
        for column, who in enumerate(annotators):
            if answer := given.get((task.id, who)):
                said[row, column] = label in answer.labels
    return said


def _questions(
    tasks: Sequence[Task],
    annotators: Sequence[str],
    given: Mapping[tuple[str, str], Answer],
    codebook: Codebook,
) -> dict[str, Answers]:
    """Return the answers about each label, and about the label set as a whole."""
    questions = {label: _said(tasks, annotators, given, label) for label in codebook.names}
    number: dict[tuple[str, ...], int] = {}
    sets = np.full((len(tasks), len(annotators)), MISSING, dtype=np.int32)
    for row, task in enumerate(tasks):
        for column, who in enumerate(annotators):
            if answer := given.get((task.id, who)):
                sets[row, column] = number.setdefault(answer.labels, len(number))
    return {**questions, LABEL_SET: sets}


def _decide(said: Answers, method: str) -> Any:
    """Return 1, 0, or NaN where it stays open, for every sentence."""
    yes, no = (said == 1).sum(axis=1), (said == 0).sum(axis=1)
    if method == DAWID_SKENE:
        probabilities = fit_label_model(said).probabilities(said)
        decided = np.where(probabilities >= _SURE, 1.0, np.nan)
        decided[probabilities <= 1 - _SURE] = 0.0
        decided[no == 0], decided[yes == 0] = 1.0, 0.0  # nobody disputes these
        return decided
    return np.where(yes > no, 1.0, np.where(no > yes, 0.0, np.nan))


def _disputes(
    task: Task,
    annotators: Sequence[str],
    given: Mapping[tuple[str, str], Answer],
    codebook: Codebook,
    decided: Any,
    matcher: CueMatcher,
) -> list[Dispute]:
    answers = [given[task.id, who] for who in annotators if (task.id, who) in given]
    found = []
    for column, label in enumerate(codebook.names):
        yes = tuple(answer.annotator for answer in answers if label in answer.labels)
        no = tuple(answer.annotator for answer in answers if label not in answer.labels)
        if yes and no:
            rules = {str(cue.rule) for cue in matcher.find(task.text) if cue.label == label}
            value = decided[column]
            outcome = None if np.isnan(value) else bool(value)
            found.append(Dispute(task, label, yes, no, tuple(sorted(rules)) or (_NO_CUE,), outcome))
    return found


def _write_version(config: LabelConfig, found: Adjudication) -> Adjudication:
    """Write the new version of the corpus, its record, its disputes and what was refused."""
    output = Path(config.output or "")
    if output.suffix != ".jsonl":
        raise UserError(f"output: {output}: a corpus is written as .jsonl")
    base_files = _sources("base", config.base)
    base: list[Example] = []
    ids: dict[str, Path] = {}
    for path in base_files.values():
        for example in read_split(path, "base", found.codebook, columns_of(config.data)).examples:
            if other := ids.get(example.id):
                raise UserError(f"base: {path}: the id {example.id!r} stands in {other} too")
            ids[example.id] = path
            base.append(example)
    fresh = additions(base, found.examples)
    split = Split(output.stem, (*base, *fresh), found.codebook)
    record = {
        "corpus": output.name,
        "digest": split.digest,
        "rows": len(split),
        "codebook": f"{found.codebook.name} {found.codebook.version}",
        "codebook_digest": found.codebook.digest,
        "base": _digests(base_files),
        "queue": {Path(config.queue or "").name: _sha256(Path(config.queue or ""))},
        "answers": _digests(_sources("answers", config.answers)),
        "annotators": {
            who: sum(answer.annotator == who for answer in found.reading.answers)
            for who in found.annotators
        },
        "adjudicators": list(found.adjudicators),
        "adjudication": config.adjudication,
        "added": len(fresh),
        "in_base_already": len(found.examples) - len(fresh),
        "answered_by_one": len(found.alone),
        "open": len(found.open),
        "refused": len(found.reading.refusals),
        "agreement": {
            name: {
                "alpha": _values(measured.alpha),
                "fleiss_kappa": _values(measured.fleiss),
                "cohen_kappa": {
                    f"{pair.first} / {pair.second}": _values(pair.kappa)
                    for pair in measured.pairs
                    if name != LABEL_SET
                },
            }
            for name, measured in found.agreement.items()
        },
    }
    write_rows(output, map(Example.to_row, split.examples), replace=False)
    content = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_bytes(output.with_suffix(".record.json"), content.encode())
    if found.disputes:
        write_rows(output.with_suffix(".disputes.jsonl"), map(_dispute_row, found.disputes))
    if found.open:
        write_rows(_open_queue(output), map(vars, found.open))
    if found.reading.refusals:
        write_rows(output.with_suffix(".refused.jsonl"), map(vars, found.reading.refusals))
    return Adjudication(**{**vars(found), "output": output, "record": record})


def _open_queue(output: Path) -> Path:
    return output.with_suffix(".open.jsonl")


def print_adjudication(found: Adjudication) -> None:
    """Print agreement by label, how pairs part, disputes by rule, and where results lie."""
    console = open_console()
    reading = found.reading
    counts = Counter(answer.annotator for answer in reading.answers)
    shown = ", ".join(f"{who} {counts[who]}" for who in found.annotators)
    console.print(f"answers: {len(reading.answers)} ({shown}); unfinished {reading.unfinished}")
    print_refusals(reading.refusals)
    table = Table(title="agreement, with 95 % intervals", title_justify="left")
    for name in ("label", "given", "Krippendorff's alpha", "Fleiss' kappa"):
        table.add_column(name)
    for name, measured in found.agreement.items():
        share = "" if name == LABEL_SET else f"{measured.positives} of {measured.answers}"
        table.add_row(name, share, str(measured.alpha), str(measured.fleiss))
    console.print(table)
    if found.adjudicators:
        names = ", ".join(found.adjudicators)
        console.print(f"answered what was open, and not part of the agreement: {names}")
    pairs = Table(title="annotators side by side", title_justify="left")
    for name in ("label", "first", "second", "Cohen's kappa", "both", "first", "second", "neither"):
        pairs.add_column(name)
    for name, measured in found.agreement.items():
        for pair in measured.pairs if name != LABEL_SET else ():
            four = (pair.both, pair.only_first, pair.only_second, pair.neither)
            pairs.add_row(name, pair.first, pair.second, str(pair.kappa), *map(str, four))
    if pairs.rows:
        console.print(pairs)
    by_rule = Counter((d.label, rule) for d in found.disputes for rule in d.rules)
    for (label, rule), count in by_rule.most_common():
        console.print(
            f"disputes: {count} about {label}, {rule if rule == _NO_CUE else 'rule ' + rule}"
        )
    if found.alone:
        left_out = "left open" if found.alone[0] in found.open else "taken as they are"
        console.print(f"answered by one annotator alone: {len(found.alone)} sentences, {left_out}")
    console.print(f"settled: {len(found.examples)} sentences; open: {len(found.open)}")
    if found.open and found.output:
        console.print(f"open: {_open_queue(found.output)}, a queue for one more annotator")
    if found.output and found.record:
        if found.record["base"]:
            console.print(
                f"added to the base: {found.record['added']} sentences; left out, since it has "
                f"their texts: {found.record['in_base_already']}"
            )
        console.print(
            f"corpus: {found.output} ({found.record['rows']} sentences, digest "
            f"{found.record['digest'][:12]}), record beside it"
        )
        console.print(f"next: python label.py check={found.output}")


def print_refusals(refusals: Sequence[Refusal]) -> None:
    """Print every refused entry with its row and reason."""
    console = open_console()
    for refusal in refusals:
        console.print(f"refused: {refusal.file}:{refusal.row}: {refusal.reason}", markup=False)


def _dispute_row(dispute: Dispute) -> dict[str, Any]:
    return {
        "id": dispute.task.id,
        "text": dispute.task.text,
        "label": dispute.label,
        "yes": dispute.yes,
        "no": dispute.no,
        "rules": dispute.rules,
        "decided": dispute.decided,
    }


def _values(estimate: Estimate) -> list[float | None]:
    values = (estimate.value, estimate.low, estimate.high)
    return [None if np.isnan(value) else round(value, 4) for value in values]


def _sources(key: str, value: str | None) -> dict[str, Path]:
    """Return the files that a setting names, under the names that a record gives them."""
    return distinct(paths_of(key, value), attrgetter("name"))


def _digests(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: _sha256(path) for name, path in files.items()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
