"""The model card that every saved model carries."""

from collections.abc import Mapping
from typing import Any

from stance.codebook import Codebook
from stance.evaluation.metrics import Interval

_COLUMNS = ("precision", "recall", "f1", "average_precision", "brier", "ece")


def model_card(
    name: str,
    kind: str,
    codebook: Codebook,
    scores: Mapping[str, Mapping[str, Interval]],
    record: Mapping[str, Any],
) -> str:
    """Write the card in Markdown: use, labels, data, scores with intervals, limits."""
    labels = "\n".join(f"- **{label.name}**: {label.definition}" for label in codebook.labels)
    data = "\n".join(
        f"- {split}: {facts['rows']} sentences, SHA-256 `{facts['digest'][:16]}…`"
        for split, facts in record["data"].items()
    )
    plain = (
        "\n## Without this project\n\n"
        "`transformers.AutoModelForTokenClassification.from_pretrained` reads this directory. The\n"
        "mean of the tokens' logits is the sentence's logit. Normalising the text, cue words\n"
        "before the sentence, calibration and thresholds are this project's; the last two stand\n"
        "in `stance.json`.\n"
        if kind == "transformer"
        else ""
    )
    return (
        f"# {name}\n\n"
        f"A {kind} classifier of English news sentences under the codebook "
        f"`{codebook.name}` {codebook.version}.\n\n"
        f"## Labels\n\n{labels}\n\n"
        "## Intended use\n\n"
        "Counting and finding reported stances in news at scale, with a person reading what\n"
        "matters. A label says what the sentence reports, not that the report is true. It is no\n"
        "evidence about a person.\n\n"
        f"## Data\n\n{data}\n\n"
        "The corpus that ships with the project was written by a language model under the\n"
        "codebook; scores on its own splits are higher than on real news.\n\n"
        f"## Scores\n\n{score_tables(codebook, scores)}\n"
        "Intervals are 95 % bootstrap intervals that resample documents.\n"
        f"{plain}\n"
        "## How it was trained\n\n"
        + "\n".join(f"- `{key}`: {value}" for key, value in record["parameters"].items())
        + "\n\n"
        + "\n".join(f"- {key} {value}" for key, value in record["versions"].items())
        + "\n\n## Licence\n\nApache-2.0\n"
    )


def score_tables(codebook: Codebook, scores: Mapping[str, Mapping[str, Interval]]) -> str:
    """Write one Markdown table per split: a row per label, then the macro and micro means."""
    tables = []
    for split, values in scores.items():
        rows = [
            f"{split} | " + " | ".join(_COLUMNS),
            "--- | " + " | ".join("---" for _ in _COLUMNS),
        ]
        for title, suffix in [
            *((name, f"/{name}") for name in codebook.names),
            ("macro mean", "_macro"),
            ("micro mean", "_micro"),
        ]:
            cells = [str(values.get(f"{metric}{suffix}", "")) for metric in _COLUMNS]
            rows.append(f"{title} | " + " | ".join(cells))
        tables.append("\n".join(f"| {row} |" for row in rows) + "\n")
    return "\n".join(tables)
