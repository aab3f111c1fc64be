"""Fine-tuning through transformers' `Trainer`, made fast on a laptop's cores.

Sentences are tokenised once. A batch holds sentences of like length, so that little is padded:
the rows are shuffled, cut into stretches of 50 batches, sorted by length within a stretch, and
the batches shuffled again. `benchmarks/training.py` compares the result with a bare loop.
"""

import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as functional
from sklearn.metrics import average_precision_score
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from stance.classifiers.base import Log
from stance.classifiers.transformer import (
    Finetuning,
    TransformerClassifier,
    pad,
    sentence_logits,
)
from stance.corpus.examples import Split
from stance.errors import UserError
from stance.text.normalize import normalize

logger = logging.getLogger(__name__)
_STRETCH = 50
_EVAL_BATCH = 64


def finetune(classifier: TransformerClassifier, train: Split, validation: Split, log: Log) -> None:
    """Train `classifier.model` in place and leave it at its best epoch.

    The best epoch is the one with the highest macro average precision on validation: it needs no
    threshold, and thresholds are fitted later.

    Raises:
        UserError: tokens are to be masked, but the tokenizer has no mask token; or no layer is
            left to train.
    """
    settings = classifier.finetuning
    if settings.mask_rate and classifier.tokenizer.mask_token_id is None:
        raise UserError(
            f"mask_rate: the tokenizer of {classifier.checkpoint!r} has no mask token; "
            f"set model.mask_rate=0"
        )
    set_seed(settings.seed)
    freeze(classifier.model, settings)
    steps = settings.epochs * math.ceil(len(train) / settings.batch_size)
    if steps > settings.max_steps:
        logger.info(
            "training ends at step %d of the %d that %d epochs would take (model.max_steps)",
            settings.max_steps,
            steps,
            settings.epochs,
        )
        steps = settings.max_steps
    with tempfile.TemporaryDirectory(prefix="stance-finetuning-") as folder:
        trainer = _LengthTrainer(
            model=classifier.model,
            args=_arguments(settings, steps, folder),
            train_dataset=Encoded(classifier, train, settings.cue_dropout, settings.mask_rate),
            eval_dataset=Encoded(classifier, validation),
            data_collator=_Collator(classifier.tokenizer),
            smoothing=settings.label_smoothing,
            compute_metrics=_average_precision,
            optimizers=(build_optimizer(classifier.model, settings), None),
            callbacks=[
                EarlyStoppingCallback(early_stopping_patience=settings.patience),
                _Forward(log),
            ],
        )
        for quiet in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(quiet)
        trainer.train()
    classifier.model.to("cpu")  # where the trainer took it to a GPU: predictions are made here
    classifier.model.requires_grad_(True)
    classifier.model.eval()


class Encoded(Dataset[dict[str, Any]]):
    """A split as token ids and targets, encoded once.

    A share `cue_dropout` of the rows is given without the cue words before it, and a share
    `mask_rate` of the tokens, special ones apart, as the mask token: anew at every access.
    """

    def __init__(
        self,
        classifier: TransformerClassifier,
        split: Split,
        cue_dropout: float = 0.0,
        mask_rate: float = 0.0,
    ) -> None:
        self.ids = classifier.encode(split.texts)
        self.mask_rate = mask_rate
        self.mask_id = classifier.tokenizer.mask_token_id
        self.special_ids = frozenset(classifier.tokenizer.all_special_ids)
        self.cue_dropout = cue_dropout if classifier.cues else 0.0
        if self.cue_dropout:
            self.bare = classifier.tokenize([normalize(text) for text in split.texts])
        if classifier.codebook.multi_label:
            self.targets = torch.from_numpy(split.gold.astype(np.float32))
        else:
            self.targets = torch.from_numpy(split.gold.argmax(axis=1).astype(np.int64))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> dict[str, Any]:
        bare = self.cue_dropout and float(torch.rand(())) < self.cue_dropout
        ids = self.bare[row] if bare else self.ids[row]
        return {
            "input_ids": self._masked(ids) if self.mask_rate else ids,
            "labels": self.targets[row],
        }

    def _masked(self, ids: list[int]) -> list[int]:
        drawn = (torch.rand(len(ids)) < self.mask_rate).tolist()
        return [
            self.mask_id if is_drawn and number not in self.special_ids else number
            for number, is_drawn in zip(ids, drawn, strict=True)
        ]


class _Collator:
    """Pad the rows of a batch."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = pad([row["input_ids"] for row in rows], self.tokenizer)
        return {**batch, "labels": torch.stack([row["labels"] for row in rows])}


class LengthBatches(Sampler[list[int]]):
    """Batches of rows of like length, in a new random order each epoch."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rows = torch.randperm(len(self.lengths), generator=self.generator).tolist()
        stretch = self.batch_size * _STRETCH
        batches = []
        for start in range(0, len(rows), stretch):
            ordered = sorted(rows[start : start + stretch], key=self.lengths.__getitem__)
            batches += [
                ordered[i : i + self.batch_size] for i in range(0, len(ordered), self.batch_size)
            ]
        for index in torch.randperm(len(batches), generator=self.generator).tolist():
            yield batches[index]


class _LengthTrainer(Trainer):
    """`Trainer` with batches by length, and a loss on sentences instead of tokens."""

    def __init__(self, *, smoothing: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.smoothing = smoothing

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        batch = dict(inputs)
        gold = batch.pop("labels")
        logits = sentence_logits(model, batch)
        loss = sentence_loss(logits, gold, self.smoothing if model.training else 0.0)
        return (loss, {"logits": logits}) if return_outputs else loss

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        dataset = cast(Encoded, self.train_dataset)
        lengths = [len(ids) for ids in dataset.ids]
        batches = LengthBatches(lengths, self.args.per_device_train_batch_size, self.args.seed)
        return DataLoader(dataset, batch_sampler=batches, collate_fn=self.data_collator)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[dict[str, Any]]:
        dataset = cast(Encoded, eval_dataset or self.eval_dataset)
        return DataLoader(dataset, batch_size=_EVAL_BATCH, collate_fn=self.data_collator)


def sentence_loss(logits: torch.Tensor, gold: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return binary cross-entropy for 0/1 rows, cross-entropy for label numbers."""
    if gold.ndim == 1:
        return functional.cross_entropy(logits, gold, label_smoothing=smoothing)
    smoothed = gold * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, smoothed)


class _Forward(TrainerCallback):
    """Pass the epoch's losses and scores on to the run's log."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        names = {
            "loss": "train/loss",
            "eval_loss": "validation/loss",
            "eval_average_precision_macro": "validation/epoch_average_precision_macro",
        }
        metrics = {names[key]: float(value) for key, value in logs.items() if key in names}
        if metrics:
            self.log(metrics, math.ceil(state.epoch or 0))


def _arguments(settings: Finetuning, steps: int, folder: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        use_cpu=not torch.cuda.is_available(),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        warmup_steps=settings.warmup_ratio,
        seed=settings.seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_only_model=True,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="average_precision_macro",
        greater_is_better=True,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def freeze(model: Any, settings: Finetuning) -> None:
    """Exclude from training what `freeze_embeddings` and `frozen_layers` name.

    Raises:
        UserError: no layer is left to train.
    """
    layers = model.config.num_hidden_layers
    if settings.frozen_layers >= layers:
        raise UserError(
            f"model.frozen_layers={settings.frozen_layers}: the encoder has {layers} layers, "
            f"and one at least must be left to train"
        )
    if settings.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    if settings.frozen_layers:
        for name, parameter in model.base_model.named_parameters():
            if _depth(name, layers) <= settings.frozen_layers:
                parameter.requires_grad = False


def build_optimizer(model: Any, settings: Finetuning) -> torch.optim.Optimizer:
    """AdamW with its own rate for the head and, if asked, lower rates for lower layers."""
    encoder = {id(p) for p in model.base_model.parameters()}
    layers = model.config.num_hidden_layers
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if parameter.ndim < 2 else settings.weight_decay
        if id(parameter) not in encoder:
            rate = settings.head_learning_rate
        else:
            rate = settings.learning_rate * settings.layer_decay ** (layers - _depth(name, layers))
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()],
        fused=True,
    )


def _depth(name: str, layers: int) -> int:
    """Return the layer of an encoder parameter: 0 for embeddings, the last for what follows."""
    if "embeddings" in name:
        return 0
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    return numbers[0] + 1 if numbers else layers


def _average_precision(prediction: EvalPrediction) -> dict[str, float]:
    gold, scores = np.asarray(prediction.label_ids), np.asarray(prediction.predictions)
    if gold.ndim == 1:
        gold = np.eye(scores.shape[1])[gold]
    defined = gold.any(axis=0)
    score = average_precision_score(gold[:, defined], scores[:, defined])
    return {"average_precision_macro": float(score)}
