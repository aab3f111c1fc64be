"""Compare our sentence splitter with pysbd and syntok, for right cuts and for speed.

All three split the same texts, `tests/data/sentence_cases.jsonl`, in alternating rounds of one
process, so that a busy machine slows all of them. A case is right when every cut inside it is where
the table has it; white space and HTML tags at a cut do not count. Errors are also given without
quotations of several sentences, which pysbd keeps whole on purpose.

    python benchmarks/sentences.py
"""

import argparse
import gc
import itertools
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pysbd
from syntok import segmenter

from stance.text.sentences import split_sentences

TABLE = Path(__file__).parent.parent / "tests" / "data" / "sentence_cases.jsonl"
HOSTILE = {
    "letters only": "a" * 1_000_000,
    "words, no stop": "word " * 200_000,
    "stops only": "." * 1_000_000,
    "spaced stops": ". " * 500_000,
    "initials": "A. " * 333_000,
    "acronyms": "U.S. And B " * 91_000,
    "quotes, initials": '"' * 500_000 + "A. " * 166_000,
    "semicolons": "; 2. a " * 143_000,
    "open brackets": "(a. B " * 166_000,
    "quotes": '"A?" ' * 200_000,
    "tag openings": "<p " * 333_000,
    "white space": "a." + " " * 1_000_000 + "b",
    "line breaks": "\n" * 1_000_000,
    "short lines": "ab\n" * 333_000,
    "entities": "&nbsp;" * 166_000,
}

Ends = list[int]


@dataclass(frozen=True)
class Case:
    """One text with the ends of its sentences."""

    kind: str
    text: str
    ends: Ends
    held_out: bool


def read_cases(path: Path) -> list[Case]:
    cases = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        if not line:
            continue
        row = json.loads(line)
        ends, position = [], 0
        for sentence in row["sentences"]:
            position = row["text"].index(sentence, position) + len(sentence)
            ends.append(position)
        cases.append(Case(row["kind"], row["text"], ends, row.get("held_out", False)))
    return cases


def ours() -> Callable[[str], Ends]:
    return lambda text: [sentence.end for sentence in split_sentences(text)]


def of_pysbd() -> Callable[[str], Ends]:
    splitter = pysbd.Segmenter(language="en", clean=False, char_span=True)
    return lambda text: [span.end for span in splitter.segment(text)]


def of_syntok() -> Callable[[str], Ends]:
    def split(text: str) -> Ends:
        return [
            sentence[-1].offset + len(sentence[-1].value)
            for paragraph in segmenter.analyze(text)
            for sentence in paragraph
        ]

    return split


def cuts(text: str, ends: Sequence[int]) -> set[int]:
    """Number the inner cuts by the characters before them, white space and tags left out."""
    kept = [not character.isspace() for character in text]
    for tag in re.finditer(r"<[^<>]*>", text):
        kept[tag.start() : tag.end()] = [False] * (tag.end() - tag.start())
    before = [0, *itertools.accumulate(kept)]
    return {before[end] for end in ends} - {0, before[-1]}


def errors(
    cases: Sequence[Case], split: Callable[[str], Ends]
) -> tuple[float, float, Counter[str]]:
    """Return the share of wrong cases, the F1 of the cuts, and wrong cases by kind."""
    wrong: Counter[str] = Counter()
    hits = found = gold = 0
    for case in cases:
        mine, theirs = cuts(case.text, split(case.text)), cuts(case.text, case.ends)
        wrong[case.kind] += mine != theirs
        hits += len(mine & theirs)
        found += len(mine)
        gold += len(theirs)
    return wrong.total() / len(cases), 2 * hits / (found + gold), wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds over the table")
    parser.add_argument("--kinds", action="store_true", help="also print wrong cases by kind")
    arguments = parser.parse_args()

    cases = read_cases(TABLE)
    splitters = {"ours": ours(), "pysbd": of_pysbd(), "syntok": of_syntok()}
    parts = {
        "all": cases,
        "written before": [case for case in cases if not case.held_out],
        "held out": [case for case in cases if case.held_out],
        "no long quotes": [case for case in cases if case.kind != "quote_spanning"],
    }
    print("wrong cases / F1 of cuts")
    print(f"{'part':16}{'cases':>6}" + "".join(f"{name:>18}" for name in splitters))
    for part, chosen in parts.items():
        row = f"{part:16}{len(chosen):6}"
        for split in splitters.values():
            rate, f1, _ = errors(chosen, split)
            row += f"{rate:10.1%} / {f1:.3f}"
        print(row)
    if arguments.kinds:
        wrong = {name: errors(cases, split)[2] for name, split in splitters.items()}
        for kind, number in sorted(Counter(case.kind for case in cases).items()):
            print(f"{kind:16}{number:6}" + "".join(f"{wrong[n][kind]:18}" for n in splitters))

    seconds: dict[str, list[float]] = {name: [] for name in splitters}
    gc.disable()
    for _ in range(arguments.rounds):
        for name, split in splitters.items():
            start = time.perf_counter()
            for case in cases:
                split(case.text)
            seconds[name].append(time.perf_counter() - start)
    sentences = sum(len(case.ends) for case in cases)
    print(f"\nsentences a second, {sentences} sentences, median of {arguments.rounds} rounds")
    for name, times in seconds.items():
        ratios = [mine / theirs for mine, theirs in zip(seconds["ours"], times, strict=True)]
        print(
            f"{name:16}{sentences / statistics.median(times):10,.0f}"
            f"   ({sentences / max(times):,.0f} to {sentences / min(times):,.0f}),"
            f" ours is {1 / statistics.median(ratios):.1f} times as fast"
        )

    print("\nours on hostile text of 1 MB, seconds")
    for name, text in HOSTILE.items():
        start = time.perf_counter()
        split_sentences(text)
        print(f"{name:16}{time.perf_counter() - start:8.2f}")


if __name__ == "__main__":
    main()
