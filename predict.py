"""Label every sentence of documents with a trained model.

Run:
    python predict.py input=article.txt
    python predict.py input=dump.csv output=labels.parquet text_column=body
    python predict.py input=dump.parquet output=labels.parquet engine=spark spark.master=local[2]
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from stance.config import PredictConfig, read_config
from stance.errors import UserError
from stance.prediction.registered import model_at_hand
from stance.scripts import one_line_errors, run_script


@hydra.main(config_path="conf", config_name="predict", version_base="1.3")
@one_line_errors
def main(values: DictConfig) -> None:
    """Read the config, then print a table or write a file."""
    config = read_config(values, PredictConfig)
    with model_at_hand(config) as directory:
        predict(config, directory)


def predict(config: PredictConfig, directory: Path) -> None:
    """Predict with the model in a folder; where the results are to go decides how."""
    if config.report and config.output is None:
        raise UserError("report: a report lies beside the output, so name one: output=FILE.jsonl")
    if config.engine == "spark":
        from stance.prediction.spark import predict_on_spark
        from stance.prediction.terminal import report_outcome

        report_outcome(predict_on_spark(config, directory))
        return
    if config.output is None:
        from stance.prediction.terminal import show

        show(config, directory)
        return
    from stance.prediction import batch
    from stance.prediction.terminal import report_outcome

    report_outcome(batch.predict(config, directory))


if __name__ == "__main__":
    run_script(
        main,
        texts=("input", "output", "model_dir", "spark.master", "text_column", "id_column"),
        aliases={"model": "model_dir"},
    )
