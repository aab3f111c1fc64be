"""Carry a queue, and the answers given so far, to an annotation tool."""

from pathlib import Path

from stance.codebook import Codebook
from stance.config import LabelConfig
from stance.errors import UserError
from stance.labelling.adjudicating import print_refusals, read_all_answers
from stance.labelling.answers import Answer
from stance.labelling.formats import write_tasks
from stance.labelling.tasks import read_queue


def export(config: LabelConfig) -> None:
    """Write the tasks of a queue for a tool, and say which files hold them.

    With `answers`, these are written too: to take work begun in one tool on to another.

    Raises:
        UserError: a file cannot be read, or one to be written stands there already.
    """
    if not config.queue or not config.output:
        raise UserError("queue, output: name the queue and the tool's file")
    codebook = Codebook.from_mapping(config.codebook, "codebook")
    answers: list[Answer] = []
    if config.answers:
        tasks, reading = read_all_answers(config, codebook)
        print_refusals(reading.refusals)
        answers = [a for a in reading.answers if config.annotator in ("", a.annotator)]
    else:
        tasks = read_queue(Path(config.queue), codebook)
    written = write_tasks(Path(config.output), tasks, answers, config.format, codebook)
    print(f"tasks: {', '.join(map(str, written))} ({len(tasks)} sentences, {len(answers)} answers)")
    print(f"next:  python label.py queue={config.queue} answers=EXPORT output=CORPUS.jsonl")
