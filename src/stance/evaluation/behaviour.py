"""Does a model keep the codebook's rules? Checks of single sentences, not of averages.

A suite is a folder of JSON Lines files. Three kinds of case, after Ribeiro et al. (2020), "Beyond
accuracy: behavioral testing of NLP models with CheckList":

- `{"id", "rule", "construct", "text", "has": [...], "lacks": [...]}`: the sentence must get the
  labels of `has` and none of `lacks`. A minimal pair is two such cases of one `pair`; as a model
  that says nothing, or everything, keeps half of them, pairs kept whole are counted too.
- `{"id", "rule", "construct", "text", "same_under": "actors" | "case" | "typography" | "frame"}`:
  the label set must stay the same under the change. Actors stand in the text as `{A}` and `{B}`.
- `{"id", "rule", "construct", "weaker", "stronger", "label"}`: the second sentence must get at
  least the probability of the first for that label.

`rule` is the number of the codebook's rule that a case tests. Every sentence of a suite is written
for it, and a corpus that shares one with it makes the suite worthless.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stance.codebook import Codebook
from stance.errors import UserError

Predict = Callable[[Sequence[str]], tuple[NDArray[np.float64], NDArray[np.int8]]]
"""From n sentences to probabilities and 0/1 predictions, both of shape (n, labels)."""

Key = TypeVar("Key", str, int)

CHANGES = ("actors", "case", "typography", "frame")
ACTORS_FILE = "actors.json"

PAIRS, ALL = "pairs", "all"
"""Pass rates beside those of the constructs: minimal pairs kept whole, and all cases."""

_COMMON = frozenset({"id", "rule", "construct"})
_KINDS: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    (_COMMON | {"text", "has", "lacks"}, frozenset({"pair"})),
    (_COMMON | {"text", "same_under"}, frozenset()),
    (_COMMON | {"weaker", "stronger", "label"}, frozenset()),
)
_ACTOR_DRAWS = 12
_FRAMES = ("In other news: {}", "{} This was reported on Tuesday.", "Our correspondent writes: {}")


@dataclass(frozen=True)
class Case:
    """One case: the sentences to score, and which kind of demand is made of them."""

    id: str
    rule: int
    construct: str
    texts: tuple[str, ...]
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    pair: str | None = None
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
        # At a rate of 0 or 1 rounding could put a bound on the wrong side of the rate.
        low = max(0.0, min(rate, centre - half))
        high = min(1.0, max(rate, centre + half))
        for name, value in (("rate", rate), ("low", low), ("high", high)):
            object.__setattr__(self, name, float(value))

    def __str__(self) -> str:
        """Write the rate, its interval and the counts."""
        return f"{self.rate:.3f} [{self.low:.3f}, {self.high:.3f}], {self.passed} of {self.total}"


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
            except ValueError as error:
                raise UserError(f"{where}: no behaviour case: {error}") from error
            if case.id in seen:
                raise UserError(f"{where}: the id {case.id!r} stands also at {seen[case.id]}")
            seen[case.id] = where
            cases.append(case)
    pairs = Counter(case.pair for case in cases if case.pair)
    for pair, members in pairs.items():
        if members != 2:
            raise UserError(f"{folder}: the pair {pair!r} has {members} cases, not two")
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
    """Return the pass rate of each construct, of whole minimal pairs, and of all cases together."""
    if not outcomes:
        return {}
    pairs = _rates((outcome.case.pair, outcome.passed) for outcome in outcomes if outcome.case.pair)
    whole = [rate.passed == rate.total for rate in pairs.values()]
    return {
        **_rates((outcome.case.construct, outcome.passed) for outcome in outcomes),
        **({PAIRS: PassRate(sum(whole), len(whole))} if whole else {}),
        ALL: PassRate(sum(o.passed for o in outcomes), len(outcomes)),
    }


def pass_rates_by_rule(outcomes: Sequence[Outcome]) -> dict[int, PassRate]:
    """Return the pass rate of each rule of the codebook that the suite tests."""
    return _rates((outcome.case.rule, outcome.passed) for outcome in outcomes)


def _rates(results: Iterable[tuple[Key, bool]]) -> dict[Key, PassRate]:
    groups: dict[Key, list[bool]] = {}
    for key, passed in results:
        groups.setdefault(key, []).append(passed)
    return {key: PassRate(sum(kept), len(kept)) for key, kept in sorted(groups.items())}


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


def _case(values: Any, codebook: Codebook, actors: Sequence[str]) -> Case:
    """Build a case from one line.

    Raises:
        ValueError: it is none.
    """
    _check_fields(values, codebook)
    case = Case(values["id"], values["rule"], values["construct"], ())
    if "same_under" in values:
        changed = tuple(variants(values["text"], values["same_under"], actors))
        return replace(case, texts=changed, invariant=True)
    if "label" in values:
        return replace(case, texts=(values["weaker"], values["stronger"]), label=values["label"])
    return replace(
        case,
        texts=(values["text"],),
        has=tuple(values["has"]),
        lacks=tuple(values["lacks"]),
        pair=values.get("pair"),
    )


def _check_fields(values: Any, codebook: Codebook) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"expected an object, found {str(values)[:40]!r}")
    fields = set(values)
    if not any(wanted <= fields <= wanted | optional for wanted, optional in _KINDS):
        raise ValueError(f"the fields {', '.join(sorted(fields))} are those of no kind of case")
    for name in fields - {"rule", "has", "lacks"}:
        if not isinstance(values[name], str) or not values[name].strip():
            raise ValueError(f"{name!r} must be a text that is not empty, found {values[name]!r}")
    if values["rule"] not in (codebook.rules or {values["rule"]}):
        raise ValueError(f"the codebook {codebook.name!r} has no rule {values['rule']!r}")
    demanded = [*values.get("has", ()), *values.get("lacks", ())]
    for label in [*demanded, *([values["label"]] if "label" in values else [])]:
        if label not in codebook.names:
            raise ValueError(f"the codebook {codebook.name!r} has no label {label!r}")
    if "has" in values and (not demanded or len(set(demanded)) < len(demanded)):
        raise ValueError("`has` and `lacks` must demand something, and no label twice")
    change = values.get("same_under", CHANGES[0])
    if change not in CHANGES:
        raise ValueError(f"same_under is one of {', '.join(CHANGES)}, not {change!r}")
    if change == "actors" and "same_under" in values and "{A}" not in values["text"]:
        raise ValueError("a case that is the same under actors needs a place {A} for one")


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
