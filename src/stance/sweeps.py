"""The run above the runs of a sweep: a table of them, the best one, and what mattered."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stance.errors import UserError
from stance.evaluation import plots
from stance.evaluation.metrics import PRIMARY
from stance.tracking import Child, Store, reopen_run, sweep_children

_SCORE = f"validation/{PRIMARY}"


def name_in_sweep(name: str, overrides: Sequence[str]) -> str:
    """Add to a run's name the settings of the model that its job was given.

    The jobs of a sweep over `model.C` would otherwise bear one name, and save over one another.
    A name given on the command line stays as it is.
    """
    settings = [override.lstrip("+").split("=", 1) for override in overrides if "=" in override]
    if any(key == "name" for key, _ in settings):
        return name
    added = [
        key.rpartition(".")[2] + re.sub(r"[^\w.+-]+", "_", value).strip("_")
        for key, value in settings
        if key.startswith(("model.", "decision."))
    ]
    return "-".join([name, *added])


def claim_name(name: str, settings: str, sweep: Path) -> None:
    """Write into the sweep's folder which settings the model of this name is trained with.

    The jobs of a sweep may be processes of their own: only the folder is theirs in common.

    Raises:
        UserError: a job of this sweep with other settings has the name already.
    """
    sweep.mkdir(parents=True, exist_ok=True)
    claim = sweep / f".{name}.yaml"
    try:
        with claim.open("x", encoding="utf-8") as file:
            file.write(settings)
    except FileExistsError as error:
        if claim.read_text(encoding="utf-8") != settings:
            raise UserError(
                f"name: two jobs of this sweep would both be saved as {name!r}; give each its own, "
                "as in 'name=mine-${hydra:job.num}'"
            ) from error


def summarize_sweep(store: Store, parent: str) -> None:
    """Write the summary of the runs that have finished so far into the parent run."""
    children = [child for child in sweep_children(store, parent) if _SCORE in child.metrics]
    if not children:
        return
    best = max(children, key=lambda child: child.metrics[_SCORE])
    run = reopen_run(store, parent)
    run.log_table(sweep_table(children), "sweep.json")
    run.log_metrics({_SCORE: best.metrics[_SCORE]}, step=len(children))
    run.set_tags({"stance.best_run": best.id, "stance.best_name": best.name})
    run.describe(
        f"Best of {len(children)} runs: {best.name}, {_SCORE} {best.metrics[_SCORE]:.3f}. "
        "The best of several scores is a little too good: confirm it with other seeds, and compare "
        "with `python evaluate.py`."
    )
    effects = {
        name: [(child.parameters[name], child.metrics[_SCORE]) for child in children]
        for name in varied(children)
    }
    if effects:
        run.log_figure(plots.sweep_effects(effects, _SCORE), "what_mattered.png")


def varied(children: Sequence[Child]) -> list[str]:
    """Name the parameters that all runs have and that differ between them."""
    shared = set.intersection(*(set(child.parameters) for child in children))
    return sorted(n for n in shared if len({child.parameters[n] for child in children}) > 1)


def sweep_table(children: Sequence[Child]) -> dict[str, list[Any]]:
    """Return a row per run, the best first: what varied, then the validation scores."""
    ordered = sorted(children, key=lambda child: -child.metrics[_SCORE])
    scores = sorted(
        name
        for name in ordered[0].metrics
        if name.startswith("validation/f1")
        and name.count("/") < 3
        and not name.endswith(("/low", "/high"))
    )
    return {
        "run": [child.name for child in ordered],
        **{name: [child.parameters[name] for child in ordered] for name in varied(children)},
        **{name: [round(child.metrics[name], 4) for child in ordered] for name in scores},
    }
