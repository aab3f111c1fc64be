"""A model becomes champion only when it has earned it.

The gates stand in config. The candidate is judged on one labelled file beside the present
champion; the decision, its figures and its reasons are written beside the model, whether it is
promoted or refused.
"""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from stance.comparison import Evaluation, evaluate, write_whole
from stance.config import EvaluateConfig, GatesConfig
from stance.evaluation.behaviour import pass_rates, read_suite, run_suite
from stance.evaluation.metrics import PRIMARY, Interval
from stance.evaluation.paired import Comparison, Difference
from stance.model import StanceModel, point_alias
from stance.tracking import open_store, register_model, start_run_if_possible

CHAMPION = "champion"


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


def promote(config: EvaluateConfig) -> tuple[Evaluation, Promotion]:
    """Judge models beside the champion, and promote the best of them if every gate holds.

    Raises:
        UserError: as `evaluate`.
    """
    models_dir = Path(config.models_dir)
    alias = models_dir / CHAMPION
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
    tags = {
        "stance.promotion": "granted" if promotion.granted else "refused",
        "stance.promotion.reason": promotion.reason,
        "stance.model_digest": candidate.digest,
    }
    store = open_store(config.tracking, config.models_dir)
    with start_run_if_possible(store, f"promote {name}", tags) as run:
        run.log_text(record.read_text(encoding="utf-8"), "promotion.json")
        if promotion.granted and run.id:
            register_model(
                store,
                run,
                directory,
                name=config.registered_name,
                alias=CHAMPION,
                labels=candidate.codebook.names,
                tags=tags,
            )
    return evaluation, promotion


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
        *_label_gates(scores, gates.f1_floor),
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


def _label_gates(scores: Mapping[str, Interval], floor: float) -> list[Gate]:
    return [
        Gate(key, f">= {floor:.3f}", f"{interval.value:.3f}", interval.value >= floor)
        for key, interval in scores.items()
        if key.startswith("f1/")
    ]


def _behaviour_gates(candidate: StanceModel, gates: GatesConfig) -> list[Gate]:
    if not gates.behaviour:
        return []
    cases = read_suite(Path(gates.behaviour), candidate.codebook)
    rate = pass_rates(run_suite(candidate.label, cases, candidate.codebook))["all"]
    wanted = f">= {gates.behaviour_floor:.3f}"
    return [Gate("behaviour", wanted, f"{rate.rate:.3f}", rate.rate >= gates.behaviour_floor)]


def _latency_gate(candidate: StanceModel, ceiling: float, texts: Sequence[str]) -> Gate:
    """Take the median time of single sentences: what a person at a screen waits for."""
    seconds = []
    for text in texts[:30]:
        start = time.perf_counter()
        candidate.probabilities([text])
        seconds.append(time.perf_counter() - start)
    median = 1000 * statistics.median(seconds)
    return Gate("latency", f"<= {ceiling:.0f} ms a sentence", f"{median:.1f} ms", median <= ceiling)
