"""Train one classifier: one config, one MLflow run, one saved model.

Run:
    python train.py model=tfidf
    python train.py model=minilm seed=2 model.epochs=3
    python train.py --multirun model=tfidf,minilm seed=1,2,3
"""

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from stance.config import TrainConfig, read_config
from stance.scripts import COLUMNS, one_line_errors, run_script


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
@one_line_errors
def main(values: DictConfig) -> None:
    """Read the config and train."""
    config = read_config(values, TrainConfig)
    from stance.sweeps import name_in_sweep
    from stance.training import train

    hydra_config = HydraConfig.get()
    sweep = hydra_config.sweep.dir if hydra_config.mode == RunMode.MULTIRUN else None
    if sweep:
        config.name = name_in_sweep(config.name, hydra_config.overrides.task)
    result = train(config, sweep)
    print(f"model: {result.directory}")
    print(f"next:  python predict.py model={result.directory} input=ARTICLE.txt")


if __name__ == "__main__":
    run_script(main, texts=[f"data.{key}" for key in COLUMNS])
