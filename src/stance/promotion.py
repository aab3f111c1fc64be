"""A model becomes champion only when it has earned it.

The gates stand in config. The candidate is judged on one labelled file beside the present
champion; the decision, its figures and its reasons are written beside the model, whether it is
promoted or refused.
"""

import json
import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from stance.comparison import Evaluation, evaluate, write_whole
from stance.config import EvaluateConfig, GatesConfig
from stance.errors import UserError
from stance.evaluation.behaviour import (
    ALL,
    pass_rates,
    pass_rates_by_rule,
    read_suite,
    run_suite,
)
from stance.evaluation.metrics import PRIMARY, Interval
from stance.evaluation.paired import Comparison, Difference
from stance.model import CHAMPION, StanceModel, check_alias, point_alias
from stance.tracking import KIND, open_store, register_model, reopen_run, start_run_if_possible

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gate:
    """One condition for promotion: what was wanted, what was found, whether it holds."""

    name: str
    wanted: str
    found: str
    passed: bool


@dataclass(frozen=True)
class Promotion:
    """The record of one decision on a candidate."""

    candidate: str
    digest: str
    data: str
    gates: tuple[Gate, ...]

    @property
    def granted(self) -> bool:
        """Whether every gate holds."""
        return all(gate.passed for gate in self.gates)

    @property
    def reason(self) -> str:
        """Name the gates that failed, or say that all hold."""
        failed = [
            f"{g.name}: wanted {g.wanted}, found {g.found}" for g in self.gates if not g.passed
        ]
        return "; ".join(failed) or "every gate holds"

    def table(self) -> dict[str, list[str]]:
        """Return the gates as columns."""
        return {
            "gate": [gate.name for gate in self.gates],
            "wanted": [gate.wanted for gate in self.gates],
            "found": [gate.found for gate in self.gates],
            "holds": ["yes" if gate.passed else "no" for gate in self.gates],
        }

    def describe(self) -> str:
        """Write the decision in Markdown, with every gate."""
        columns = self.table()
        rows = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
        verdict = "becomes champion" if self.granted else "does not become champion"
        return f"`{self.candidate}` {verdict} on {self.data}: {self.reason}.\n\n{table}"


def promote(config: EvaluateConfig) -> tuple[Evaluation, Promotion]:
    """Judge models beside the champion, and promote the best of them if every gate holds.

    Raises:
        UserError: as `evaluate`.
    """
    if config.operating_point is not None:
        raise UserError(
            f"operating_point={config.operating_point}: a champion predicts at its own operating "
            "point, so promote=true judges it there; leave this out"
        )
    models_dir = Path(config.models_dir)
    alias = models_dir / CHAMPION
    check_alias(alias)
    champion = alias.resolve() if alias.exists() else None
    # Seeds are judged one by one here: it is one saved model that becomes champion.
    evaluation = evaluate(replace(config, pool_seeds=False), reference=champion)
    named = [Path(path).resolve().name for path in config.models]
    scores = evaluation.comparison.scores
    name = max(named, key=lambda candidate: scores[candidate][PRIMARY].value)
    candidate, directory = evaluation.models[name], evaluation.directories[name].resolve()
    beside = next((d for d in evaluation.comparison.differences if d.second == name), None)
    promotion = decide_promotion(
        candidate,
        evaluation.comparison,
        config.gates,
        name=name,
        texts=evaluation.split.texts,
        beside_champion=beside if champion else None,
    )
    record = carry_out(promotion, directory, models_dir)
    record_promotion(promotion, evaluation, config, record)
    return evaluation, promotion


def record_promotion(
    promotion: Promotion, evaluation: Evaluation, config: EvaluateConfig, record: Path
) -> None:
    """Record a decision in MLflow, tag the model's own run, and register a new champion."""
    candidate = evaluation.models[promotion.candidate]
    tags = {
        "stance.promotion": "granted" if promotion.granted else "refused",
        "stance.promotion.reason": promotion.reason,
        "stance.model_digest": candidate.digest,
    }
    store = open_store(config.tracking, config.models_dir)
    name = f"promote {promotion.candidate}"
    with start_run_if_possible(store, name, {KIND: "promote", **tags}) as run:
        run.describe(promotion.describe())
        run.log_table(promotion.table(), "gates.json")
        run.log_text(record.read_text(encoding="utf-8"), "promotion.json")
        if not run.id:
            return
        reopen_run(store, candidate.record.get("run", "")).set_tags(tags)
        if promotion.granted:
            try:
                register_model(
                    store,
                    run,
                    evaluation.directories[promotion.candidate].resolve(),
                    name=config.registered_name,
                    alias=CHAMPION,
                    labels=candidate.codebook.names,
                    description=promotion.describe(),
                    tags=tags,
                )
            except UserError as error:
                logger.warning("%s; %s/%s stands all the same", error, config.models_dir, CHAMPION)


def decide_promotion(
    candidate: StanceModel,
    comparison: Comparison,
    gates: GatesConfig,
    *,
    name: str,
    texts: Sequence[str],
    beside_champion: Difference | None,
) -> Promotion:
    """Put a judged candidate through the gates.

    Args:
        candidate: the model.
        comparison: holds the candidate's scores.
        gates: the bounds.
        name: the candidate's name in `comparison`.
        texts: sentences to measure latency on.
        beside_champion: the difference from the present champion, if there is another one.
    """
    scores = comparison.scores[name]
    found = [
        *(_label_gate(label, scores, gates.f1_floor) for label in candidate.codebook.names),
        Gate(
            "calibration error",
            f"<= {gates.ece_ceiling:.3f}",
            f"{scores['ece_macro'].value:.3f}",
            scores["ece_macro"].value <= gates.ece_ceiling,
        ),
        *_behaviour_gates(candidate, gates),
        _latency_gate(candidate, gates.latency_ceiling_ms, texts),
    ]
    if beside_champion is not None:
        found.append(_champion_gate(beside_champion, gates.tolerance))
    return Promotion(name, candidate.digest, comparison.data, tuple(found))


def carry_out(promotion: Promotion, directory: Path, models_dir: Path) -> Path:
    """Move the alias if the promotion is granted, and write its record beside the model."""
    record = {**asdict(promotion), "granted": promotion.granted, "reason": promotion.reason}
    path = directory.with_name(f"{directory.name}.promotion.json")
    write_whole(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    if promotion.granted:
        point_alias(models_dir / CHAMPION, directory)
    return path


def _champion_gate(difference: Difference, tolerance: float) -> Gate:
    """Hold that the paired interval excludes a loss beyond the tolerance."""
    return Gate(
        "beside the champion",
        f"difference in macro F1 surely above -{tolerance:.3f}",
        f"{difference.difference.value:+.3f} "
        f"[{difference.difference.low:+.3f}, {difference.difference.high:+.3f}]",
        difference.difference.low >= -tolerance,
    )


def _label_gate(label: str, scores: Mapping[str, Interval], floor: float) -> Gate:
    key, wanted = f"f1/{label}", f">= {floor:.3f}"
    if key not in scores:
        return Gate(key, wanted, "no sentence with this label in the file", False)
    return Gate(key, wanted, f"{scores[key].value:.3f}", scores[key].value >= floor)


def _behaviour_gates(candidate: StanceModel, gates: GatesConfig) -> list[Gate]:
    """Hold the pass rate over all cases, and that of the rule that is kept least."""
    if not gates.behaviour:
        return []
    cases = read_suite(Path(gates.behaviour), candidate.codebook)
    outcomes = run_suite(candidate.label, cases, candidate.codebook)
    rate = pass_rates(outcomes)[ALL].rate
    by_rule = {rule: found.rate for rule, found in pass_rates_by_rule(outcomes).items()}
    rule = min(by_rule, key=lambda number: by_rule[number])
    floor, rule_floor = gates.behaviour_floor, gates.behaviour_rule_floor
    return [
        Gate("behaviour", f">= {floor:.3f}", f"{rate:.3f}", rate >= floor),
        Gate(
            "behaviour, every rule",
            f">= {rule_floor:.3f}",
            f"{by_rule[rule]:.3f} for rule {rule}",
            by_rule[rule] >= rule_floor,
        ),
    ]


def _latency_gate(candidate: StanceModel, ceiling: float, texts: Sequence[str]) -> Gate:
    """Take the median time of single sentences: what a person at a screen waits for."""
    seconds = []
    for text in texts[:30]:
        start = time.perf_counter()
        candidate.probabilities([text])
        seconds.append(time.perf_counter() - start)
    median = 1000 * statistics.median(seconds)
    return Gate("latency", f"<= {ceiling:.0f} ms a sentence", f"{median:.1f} ms", median <= ceiling)
