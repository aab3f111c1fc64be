"""Does a model keep the codebook's rules? Checks of single sentences, not of averages.

A suite is a folder of JSON Lines files. Three kinds of case, after Ribeiro et al. (2020), "Beyond
accuracy: behavioral testing of NLP models with CheckList":

- `{"id", "rule", "construct", "text", "has": [...], "lacks": [...]}`: the sentence must get the
  labels of `has` and none of `lacks`; a minimal pair is two such cases of one `pair`.
- `{"id", "rule", "construct", "text", "same_under": "actors" | "case" | "typography" | "frame"}`:
  the label set must stay the same under the change. Actors stand in the text as `{A}` and `{B}`.
- `{"id", "rule", "construct", "weaker", "stronger", "label"}`: the second sentence must get at
  least the probability of the first for that label.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stance.codebook import Codebook
from stance.errors import UserError

Predict = Callable[[Sequence[str]], tuple[NDArray[np.float64], NDArray[np.int8]]]
"""From n sentences to probabilities and 0/1 predictions, both of shape (n, labels)."""

CHANGES = ("actors", "case", "typography", "frame")
ACTORS_FILE = "actors.json"

_ACTOR_DRAWS = 12
_FRAMES = ("Meanwhile, {}", "{} This was reported on Tuesday.", "In a separate development, {}")


@dataclass(frozen=True)
class Case:
    """One case: the sentences to score, and which kind of demand is made of them."""

    id: str
    rule: int
    construct: str
    texts: tuple[str, ...]
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    label: str | None = None
    invariant: bool = False


@dataclass(frozen=True)
class Outcome:
    """Whether a model kept a case, and what it said where it did not."""

    case: Case
    passed: bool
    said: str = ""


@dataclass(frozen=True)
class PassRate:
    """Share of cases kept, with its Wilson interval at 95 %."""

    passed: int
    total: int
    rate: float = field(init=False)
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        """Compute the rate and the interval (Wilson 1927)."""
        z, n = 1.959964, self.total
        rate = self.passed / n
        centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
        for name, value in (("rate", rate), ("low", centre - half), ("high", centre + half)):
            object.__setattr__(self, name, float(value))

    def __str__(self) -> str:
        """Write the rate, its interval and the counts."""
        return f"{self.rate:.3f} [{self.low:.3f}, {self.high:.3f}] ({self.passed}/{self.total})"


def read_suite(folder: Path, codebook: Codebook) -> list[Case]:
    """Read every case of a suite.

    Raises:
        UserError: there is no suite, or a line is no case under the codebook.
    """
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise UserError(f"{folder}: no behaviour suite here (*.jsonl)")
    cases: list[Case] = []
    seen: dict[str, str] = {}
    actors = _read_actors(folder)
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                case = _case(json.loads(line), codebook, actors)
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{where}: no behaviour case: {error!r}") from error
            if case.id in seen:
                raise UserError(f"{where}: the id {case.id!r} stands also at {seen[case.id]}")
            seen[case.id] = where
            cases.append(case)
    return cases


def run_suite(predict: Predict, cases: Sequence[Case], codebook: Codebook) -> list[Outcome]:
    """Score every sentence of the suite in one go and judge each case."""
    texts = [text for case in cases for text in case.texts]
    probabilities, predicted = predict(texts)
    outcomes = []
    start = 0
    for case in cases:
        rows = slice(start, start + len(case.texts))
        start += len(case.texts)
        outcomes.append(_judge(case, probabilities[rows], predicted[rows], codebook))
    return outcomes


def pass_rates(outcomes: Sequence[Outcome]) -> dict[str, PassRate]:
    """Return the pass rate of each construct, then of all cases together."""
    groups: dict[str, list[bool]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.case.construct, []).append(outcome.passed)
    rates = {name: PassRate(sum(kept), len(kept)) for name, kept in sorted(groups.items())}
    return {**rates, "all": PassRate(sum(o.passed for o in outcomes), len(outcomes))}


def failures(outcomes: Sequence[Outcome]) -> dict[str, list[Any]]:
    """List the cases that were not kept, as columns."""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    return {
        "id": [o.case.id for o in failed],
        "rule": [o.case.rule for o in failed],
        "construct": [o.case.construct for o in failed],
        "text": [o.case.texts[0] for o in failed],
        "wanted": [_wanted(o.case) for o in failed],
        "said": [o.said for o in failed],
    }


def variants(text: str, change: str, actors: Sequence[str], seed: str = "") -> Iterator[str]:
    """Yield a sentence under changes that must not change its labels, the original first."""
    match change:
        case "actors":
            generator = random.Random(f"{seed}{text}")
            for _ in range(_ACTOR_DRAWS):
                first, second = generator.sample(list(actors), 2)
                yield _capitalised(text.replace("{A}", first).replace("{B}", second))
        case "case":
            yield from (text, text.upper(), text.lower())
        case "typography":
            yield text
            yield text.replace('"', "“").replace("'", "’").replace(" - ", " — ")
            yield text.replace(" ", "\u00a0").replace("...", "…")
            yield f"  {text.replace(' ', '  ')}\n"
        case "frame":
            yield text
            yield from (frame.format(text) for frame in _FRAMES)


def _case(values: dict[str, Any], codebook: Codebook, actors: Sequence[str]) -> Case:
    common = {"id": values["id"], "rule": int(values["rule"]), "construct": values["construct"]}
    for label in [*values.get("has", ()), *values.get("lacks", ()), *[values.get("label")]]:
        if label is not None and label not in codebook.names:
            raise ValueError(f"the codebook has no label {label!r}")
    if "same_under" in values:
        change = values["same_under"]
        if change not in CHANGES:
            raise ValueError(f"same_under is one of {', '.join(CHANGES)}, not {change!r}")
        return Case(**common, texts=tuple(variants(values["text"], change, actors)), invariant=True)
    if "label" in values:
        return Case(**common, texts=(values["weaker"], values["stronger"]), label=values["label"])
    has, lacks = tuple(values["has"]), tuple(values["lacks"])
    if not has and not lacks:
        raise ValueError("a case demands something in `has` or `lacks`")
    return Case(**common, texts=(values["text"],), has=has, lacks=lacks)


def _judge(
    case: Case,
    probabilities: NDArray[np.float64],
    predicted: NDArray[np.int8],
    codebook: Codebook,
) -> Outcome:
    sets = [
        codebook.show([n for n, v in zip(codebook.names, row, strict=True) if v])
        for row in predicted
    ]
    if case.invariant:
        odd = next((i for i, found in enumerate(sets) if found != sets[0]), None)
        said = "" if odd is None else f"{sets[0]}; but {sets[odd]} for: {case.texts[odd].strip()}"
        return Outcome(case, odd is None, said)
    if case.label is not None:
        weaker, stronger = probabilities[:, codebook.names.index(case.label)]
        return Outcome(case, bool(stronger >= weaker), f"{weaker:.3f}, then {stronger:.3f}")
    given = {n for n, v in zip(codebook.names, predicted[0], strict=True) if v}
    kept = set(case.has) <= given and not set(case.lacks) & given
    return Outcome(case, kept, sets[0])


def _wanted(case: Case) -> str:
    if case.invariant:
        return "the same labels throughout"
    if case.label is not None:
        return f"no less {case.label} for: {case.texts[1]}"
    return ", ".join([*case.has, *(f"not {label}" for label in case.lacks)])


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _read_actors(folder: Path) -> list[str]:
    """Read the interchangeable actors: a mapping from region to names."""
    path = folder / ACTORS_FILE
    try:
        regions = json.loads(path.read_text(encoding="utf-8"))
        actors = [str(name) for names in regions.values() for name in names]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path}: expected a mapping from region to actor names: {error}"
        ) from error
    if len(actors) < 2:
        raise UserError(f"{path}: name at least two actors")
    return actors
