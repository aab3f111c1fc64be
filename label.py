"""Make labelled sentences: suggest, queue, label, agree, check, split.

Run:
    python label.py input=articles/ output=queue.jsonl
    python label.py queue=queue.jsonl output=anna.jsonl serve=true annotator=anna
    python label.py queue=queue.jsonl answers=anna.jsonl,ben.jsonl output=corpus-2.jsonl
    python label.py check=corpus-2.jsonl
    python label.py split=gold.csv output=gold/ data.text_column=sentence
"""

import sys

import hydra
from omegaconf import DictConfig

from stance.config import LabelConfig, read_config
from stance.errors import UserError
from stance.scripts import COLUMNS, EXIT_REFUSED, one_line_errors, run_script

TEXTS = (
    *("check", "split", "input", "queue", "answers", "output", "base", "gold", "model_dir"),
    *("annotator", "text_column", "id_column"),
    *(f"data.{key}" for key in COLUMNS),
)


@hydra.main(config_path="conf", config_name="label", version_base="1.3")
@one_line_errors
def main(values: DictConfig) -> None:
    """Read the config and do the one thing that it asks for."""
    config = read_config(values, LabelConfig)
    if config.check:
        from stance.labelling.checking import check, print_quality

        quality = check(config)
        print_quality(quality)
        if quality.must_fix:
            sys.exit(EXIT_REFUSED)
    elif config.split:
        from stance.labelling.splitting import split_file

        split_file(config)
    elif config.report:
        from stance.labelling.report import print_report, report_voters

        print_report(report_voters(config))
    elif config.input:
        from stance.labelling.suggesting import make_queue, print_queued

        print_queued(make_queue(config))
    elif config.serve:
        from stance.labelling.page import serve

        serve(config)
    elif config.queue and config.format != "auto" and config.output:
        from stance.labelling.exporting import export

        export(config)
    elif config.answers:
        from stance.labelling.adjudicating import adjudicate, print_adjudication

        print_adjudication(adjudicate(config))
    else:
        raise UserError(
            "name what to do: check, split, report, input, serve, answers, or format; see --help"
        )


if __name__ == "__main__":
    run_script(main, texts=TEXTS, aliases={"model": "model_dir"})
