"""Judge saved models on one labelled file and compare them; promote the best one.

Run:
    python evaluate.py models=[models/tfidf-seed1,models/minilm-seed1] data=data/stance/test.jsonl
    python evaluate.py models=[models/champion] data=my.tsv columns.text_column=sentence
    python evaluate.py models=[models/minilm-seed1] data=data/stance/test.jsonl report=true
    python evaluate.py models=[models/minilm-seed2] data=data/stance/test.jsonl promote=true
"""

import sys

import hydra
from omegaconf import DictConfig

from stance.config import EvaluateConfig, read_config
from stance.scripts import COLUMNS, EXIT_REFUSED, one_line_errors, run_script


@hydra.main(config_path="conf", config_name="evaluate", version_base="1.3")
@one_line_errors
def main(values: DictConfig) -> None:
    """Read the config, compare, print the tables; with `promote=true`, name a champion."""
    config = read_config(values, EvaluateConfig)
    from stance.comparison import evaluate, print_comparison
    from stance.promotion import promote

    evaluation, promotion = promote(config) if config.promote else (evaluate(config), None)
    print_comparison(evaluation.comparison)
    print(f"report: {evaluation.report}")
    if evaluation.page:
        print(f"errors: {evaluation.page}")
    if promotion is None:
        return
    if not promotion.granted:
        print(f"refused: {promotion.candidate} does not become champion: {promotion.reason}")
        sys.exit(EXIT_REFUSED)
    print(f"champion: {config.models_dir}/champion is now {promotion.candidate}")


if __name__ == "__main__":
    texts = ("data_file", "output", *(f"columns.{key}" for key in COLUMNS))
    run_script(main, texts=texts, aliases={"data": "data_file"})
