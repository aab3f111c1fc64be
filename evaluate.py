"""Judge saved models on one labelled file and compare them; name the best one champion.

Run:
    python evaluate.py models=[models/tfidf-seed1,models/minilm-seed1] data=data/stance/test.jsonl
    python evaluate.py models=[models/champion] data=my.tsv columns.text_column=sentence
"""

import hydra
from omegaconf import DictConfig

from stance.config import EvaluateConfig, read_config
from stance.scripts import one_line_errors, run_script


@hydra.main(config_path="conf", config_name="evaluate", version_base="1.3")
@one_line_errors
def main(values: DictConfig) -> None:
    """Read the config, compare, print the tables."""
    config = read_config(values, EvaluateConfig)
    from stance.comparison import evaluate, print_comparison

    print_comparison(evaluate(config))


if __name__ == "__main__":
    run_script(main, paths=("data", "output"))
