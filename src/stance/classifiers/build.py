"""From a config or a saved directory to a classifier: the only place that knows all kinds.

Each branch imports its own classifier, so that the baseline never waits for torch.
"""

from pathlib import Path

from stance.classifiers.base import Classifier
from stance.classifiers.engines import TORCH, choose_engine
from stance.codebook import Codebook
from stance.config import ModelConfig, RulesConfig, TfidfConfig, TransformerConfig
from stance.errors import UserError


def build_classifier(config: ModelConfig, codebook: Codebook, seed: int) -> Classifier:
    """Build the untrained classifier that the config describes."""
    match config:
        case RulesConfig():
            from stance.classifiers.rules import RulesClassifier

            return RulesClassifier(codebook)
        case TfidfConfig():
            from stance.classifiers.tfidf import TfidfClassifier

            return TfidfClassifier(
                codebook,
                word_ngrams=config.word_ngrams,
                char_ngrams=config.char_ngrams,
                min_df=config.min_df,
                C=config.C,
                class_weight=config.class_weight,
                cues=config.cues,
                cue_weight=config.cue_weight,
                seed=seed,
            )
        case TransformerConfig():
            from stance.classifiers.transformer import Finetuning, TransformerClassifier

            return TransformerClassifier(
                codebook,
                checkpoint=config.checkpoint,
                revision=config.revision,
                sha256=config.sha256,
                max_length=config.max_length,
                cues=config.cues,
                cue_prior=config.cue_prior,
                finetuning=Finetuning(
                    learning_rate=config.learning_rate,
                    head_learning_rate=config.head_learning_rate,
                    layer_decay=config.layer_decay,
                    epochs=config.epochs,
                    max_steps=config.max_steps,
                    batch_size=config.batch_size,
                    weight_decay=config.weight_decay,
                    warmup_ratio=config.warmup_ratio,
                    patience=config.patience,
                    label_smoothing=config.label_smoothing,
                    cue_dropout=config.cue_dropout,
                    mask_rate=config.mask_rate,
                    freeze_embeddings=config.freeze_embeddings,
                    frozen_layers=config.frozen_layers,
                    seed=seed,
                ),
            )
    raise UserError(f"model: no classifier belongs to {type(config).__name__}")


def load_classifier(
    kind: str, directory: Path, codebook: Codebook, *, engine: str = TORCH
) -> Classifier:
    """Load the classifier of a saved model whose files have been verified.

    Raises:
        UserError: no classifier of this kind exists, or it has no such engine.
    """
    chosen = choose_engine(kind, directory, engine)
    match kind:
        case "rules":
            from stance.classifiers.rules import RulesClassifier

            return RulesClassifier.load(directory, codebook)
        case "tfidf":
            from stance.classifiers.tfidf import TfidfClassifier

            return TfidfClassifier.load(directory, codebook)
        case "transformer":
            if chosen != TORCH:
                from stance.classifiers.onnx import OnnxClassifier

                return OnnxClassifier.load(directory, codebook, chosen)
            from stance.classifiers.transformer import TransformerClassifier

            return TransformerClassifier.load(directory, codebook)
    raise UserError(
        f"{directory}: no classifier of kind {kind!r}; known are rules, tfidf, transformer"
    )
