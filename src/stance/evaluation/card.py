"""The model card that every saved model carries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stance.codebook import Codebook
from stance.decision import Decision
from stance.evaluation.behaviour import (
    ALL,
    PAIRS,
    Outcome,
    failures,
    pass_rates,
    pass_rates_by_rule,
)
from stance.evaluation.metrics import Interval, Judged

RELIABILITY = "reliability.png"
EXAMPLE = "The ministry condemned the attack."

_COLUMNS = ("precision", "recall", "f1", "average_precision", "brier", "ece")
_OWN_CORPUS = ("data", "stance")
"""The folder of the corpus that ships."""
_WEAK = 0.8
"""Constructs of which a model keeps less than this are named among its known failures."""


@dataclass(frozen=True)
class CardFacts:
    """What the card tells of a model.

    `scores` and `judged` are by split, the last one the one that counts most; `learnt_from` names
    the training files; `prepared` is the sentence `EXAMPLE` as an encoder reads it, None where
    `transformers` cannot load the model.
    """

    name: str
    kind: str
    codebook: Codebook
    decision: Decision
    scores: Mapping[str, Mapping[str, Interval]]
    judged: Mapping[str, Judged]
    outcomes: Sequence[Outcome]
    record: Mapping[str, Any]
    learnt_from: Sequence[str]
    prepared: str | None = None


def model_card(facts: CardFacts) -> str:
    """Write the card in Markdown: use, labels, data, scores with intervals, failures, loading."""
    codebook = facts.codebook
    parts = [
        _front_matter(facts),
        f"# {facts.name}",
        f"A {facts.kind} classifier of English news sentences under the codebook "
        f"`{codebook.name}` {codebook.version}: "
        + (
            "each sentence gets any subset of the labels, often none."
            if codebook.multi_label
            else "each sentence gets exactly one label."
        ),
        "## Labels",
        "\n".join(f"- **{label.name}**: {label.definition}" for label in codebook.labels),
        "## Intended use",
        "Counting and finding reported stances in news at scale, with a person reading what\n"
        "matters. A label says what the sentence reports, not that the report is true. It is no\n"
        "evidence about a person, and no ground for a decision about one.",
        "## Data",
        _data(facts),
        "## Scores",
        score_tables(codebook, facts.scores),
        "Intervals are 95 % bootstrap intervals that resample documents. Thresholds and\n"
        "calibration were fitted on validation, so scores on it are a little too good.",
        *([f"![Observed rate over predicted probability]({RELIABILITY})"] if facts.judged else []),
        _decision_table(facts.decision),
        *_behaviour(facts),
        "## Known failures",
        _known_failures(facts),
        "## Use",
        _use(facts),
        *_plain_use(facts),
        "## How it was trained",
        "\n".join(f"- `{key}`: {value}" for key, value in facts.record["parameters"].items()),
        "\n".join(f"- {key} {value}" for key, value in facts.record["versions"].items()),
        "## Licence",
        _licence(facts.record),
    ]
    return "\n\n".join(parts) + "\n"


def score_tables(codebook: Codebook, scores: Mapping[str, Mapping[str, Interval]]) -> str:
    """Write one Markdown table per split: a row per label, then the macro and micro means."""
    tables = []
    for split, values in scores.items():
        rows = [
            [
                title,
                *(str(values.get(f"{metric}{suffix}", "")) for metric in _COLUMNS),
            ]
            for title, suffix in [
                *((name, f"/{name}") for name in codebook.names),
                ("macro mean", "_macro"),
                ("micro mean", "_micro"),
            ]
        ]
        tables.append(_table([split, *_COLUMNS], rows))
    return "\n\n".join(tables)


def _front_matter(facts: CardFacts) -> str:
    library = "\nlibrary_name: transformers" if facts.prepared else ""
    return (
        f"---\nlanguage: en\npipeline_tag: text-classification{library}\n"
        f"tags: [news, stance, event-data, {'multi' if facts.codebook.multi_label else 'single'}"
        f"-label-classification]\n---"
    )


def _data(facts: CardFacts) -> str:
    lines = [
        f"- {split}: {data['rows']} sentences in {data['documents']} documents ("
        + ", ".join(f"{name} {count}" for name, count in data["labels"].items())
        + f"), SHA-256 `{data['digest'][:16]}…`"
        for split, data in facts.record["data"].items()
    ]
    if any(Path(file).resolve().parent.parts[-2:] == _OWN_CORPUS for file in facts.learnt_from):
        lines.append(
            "\nThe corpus that ships with the project was written by a language model under the\n"
            "codebook. Scores on its own splits are higher than on real news; measure on\n"
            "sentences of your own sources before you rely on the model."
        )
    return "\n".join(lines)


def _decision_table(decision: Decision) -> str:
    if not decision.multi_label:
        return "The most probable label is taken; probabilities are calibrated by temperature."
    rows = [
        [name, f"{threshold:.3f}", calibrator.method]
        for name, threshold, calibrator in zip(
            decision.names, decision.thresholds(), decision.calibrators, strict=True
        )
    ]
    return (
        f"Operating point `{decision.operating_point}`; another one can be chosen at prediction.\n"
        f"A sentence is marked uncertain where a probability lies within {decision.band:g} of its\n"
        "threshold.\n\n" + _table(["label", "threshold", "calibration"], rows)
    )


def _behaviour(facts: CardFacts) -> list[str]:
    if not facts.outcomes:
        return []
    rates = pass_rates(facts.outcomes)
    rows = [
        [f"{rule}. {_headline(facts.codebook.rules.get(rule, ''))}", str(rate)]
        for rule, rate in pass_rates_by_rule(facts.outcomes).items()
    ]
    if PAIRS in rates:
        rows.append(["minimal pairs kept whole", str(rates[PAIRS])])
    rows.append(["all cases", str(rates[ALL])])
    return [
        "## Rules of the codebook",
        "Share of test sentences written for each rule whose demand the model keeps, with its\n"
        "95 % interval.",
        _table(["rule", "kept"], rows),
    ]


def _known_failures(facts: CardFacts) -> str:
    lines = []
    for split, judged in list(facts.judged.items())[-1:]:
        missed = ((judged.gold == 1) & (judged.predicted == 0)).sum(axis=0)
        false = ((judged.gold == 0) & (judged.predicted == 1)).sum(axis=0)
        for name, misses, wrong, positives in zip(
            judged.names, missed, false, judged.gold.sum(axis=0), strict=True
        ):
            lines.append(
                f"- {name}: on {split}, {misses} of {positives} missed, {wrong} given wrongly"
            )
    rates = pass_rates(facts.outcomes)
    weak = sorted(
        (name for name, rate in rates.items() if rate.rate < _WEAK and name not in (PAIRS, ALL)),
        key=lambda name: rates[name].rate,
    )
    failed = failures(facts.outcomes)
    for construct in weak:
        example = failed["construct"].index(construct)
        lines.append(
            f"- {construct}: {rates[construct].passed} of {rates[construct].total} test sentences "
            f"kept; fails for instance: “{failed['text'][example]}” (wanted "
            f"{failed['wanted'][example]}; said {failed['said'][example]})"
        )
    lines.append("- languages other than English, and text that is no prose: never tried")
    return "\n".join(lines)


def _use(facts: CardFacts) -> str:
    return (
        "```sh\n"
        f"python predict.py model=models/{facts.name} input=ARTICLE.txt\n"
        "```\n\n"
        "```python\n"
        "from pathlib import Path\n\n"
        "from stance.model import load_model\n\n"
        f'model = load_model(Path("models/{facts.name}"))\n'
        f'prediction = model.predict(["{EXAMPLE}"])\n'
        "print(prediction.label_sets, prediction.probabilities)\n"
        "```"
    )


def _plain_use(facts: CardFacts) -> list[str]:
    if facts.prepared is None:
        return []
    squash = "torch.sigmoid(mean)" if facts.codebook.multi_label else "torch.softmax(mean, dim=-1)"
    before = facts.prepared.removesuffix(EXAMPLE)
    cues = (
        f"the labels that the codebook's cue words give away stand before it (here\n`{before}`), "
        if before
        else ""
    )
    return [
        "## Without this project",
        "`transformers` reads this directory: a head that gives every token a logit per label;\n"
        "the mean over the tokens is the sentence's. What this project adds: the sentence is\n"
        f"normalised, {cues}the log odds of\n"
        "those cue rules join the encoder's (`cue_prior`), and probabilities are calibrated and\n"
        "cut at the thresholds above (`stance.json`).",
        "```python\n"
        "import torch\n"
        "from transformers import AutoModelForTokenClassification, AutoTokenizer\n\n"
        f'directory = "models/{facts.name}"\n'
        "tokenizer = AutoTokenizer.from_pretrained(directory)\n"
        "model = AutoModelForTokenClassification.from_pretrained(directory).eval()\n"
        f'batch = tokenizer(["{facts.prepared}"], return_tensors="pt")\n'
        "with torch.inference_mode():\n"
        "    logits = model(**batch).logits\n"
        'mask = batch["attention_mask"].unsqueeze(-1)\n'
        "mean = (logits * mask).sum(dim=1) / mask.sum(dim=1)\n"
        f"probabilities = dict(zip(model.config.id2label.values(), {squash}[0].tolist()))\n"
        "print(probabilities)\n"
        "```",
    ]


def _licence(record: Mapping[str, Any]) -> str:
    checkpoint = record["parameters"].get("model.checkpoint")
    weights = (
        f" The weights were fine-tuned from `{checkpoint}`; its licence holds for them too."
        if checkpoint
        else ""
    )
    return f"Apache-2.0, as the project.{weights}"


def _headline(rule: str) -> str:
    """Return the first sentence of a rule, which names it."""
    return rule.partition(".")[0]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
