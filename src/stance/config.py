"""Names, types and ranges of every setting; the values stand in `conf/`.

Hydra composes the YAML files over these schemas, so a misspelt key or a wrong type fails before
any work. `read_config` turns the composed config into dataclasses once, and checks the ranges.
"""

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from stance.corpus.examples import Columns
from stance.decision import METHODS, check_operating_point
from stance.errors import UserError

T = TypeVar("T")

HIGHEST_SEED = 2**32 - 1
"""The highest that scikit-learn and transformers take."""


def limited(
    default: Any = MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare a field with its range: `low <= value <= high`, `value > above`, or `choices`."""
    metadata = {"low": low, "high": high, "above": above, "choices": choices}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class DataConfig:
    """Where the labelled files lie and how they are read (group `data`)."""

    name: str = MISSING
    train: list[str] = MISSING
    validation: list[str] = MISSING
    test: list[str] = MISSING
    text_column: str = "text"
    label_column: str = "labels"
    id_column: str = ""
    group_column: str = ""
    label_separator: str = ","
    tsv_quotes: bool = False


@dataclass
class ModelConfig:
    """What all classifiers have (group `model`)."""

    name: str = MISSING


@dataclass
class RulesConfig(ModelConfig):
    """The codebook's cue rules as a classifier."""


@dataclass
class TfidfConfig(ModelConfig):
    """N-grams and logistic regression."""

    word_ngrams: int = limited(low=1, high=5)
    char_ngrams: int = limited(low=0, high=8)
    min_df: int = limited(low=1)
    C: float = limited(above=0)
    class_weight: str | None = limited(choices=("balanced",))
    cues: bool = MISSING
    cue_weight: float = limited(low=0)


@dataclass
class TransformerConfig(ModelConfig):
    """A pretrained encoder and how it is fine-tuned."""

    checkpoint: str = MISSING
    revision: str = ""
    sha256: str = ""
    max_length: int = limited(low=8, high=8192)
    cues: bool = MISSING
    cue_prior: float = limited(low=0, high=10)
    learning_rate: float = limited(above=0, high=1)
    head_learning_rate: float = limited(above=0, high=1)
    layer_decay: float = limited(above=0, high=1)
    epochs: int = limited(low=1)
    max_steps: int = limited(low=1)
    batch_size: int = limited(low=1)
    weight_decay: float = limited(low=0, high=1)
    warmup_ratio: float = limited(low=0, high=1)
    patience: int = limited(low=1)
    label_smoothing: float = limited(low=0, high=0.5)
    cue_dropout: float = limited(low=0, high=1)
    mask_rate: float = limited(low=0, high=1)
    freeze_embeddings: bool = MISSING
    frozen_layers: int = limited(low=0)
    export: bool = MISSING


@dataclass
class TrackingConfig:
    """Where runs are recorded (group `tracking`)."""

    kind: str = limited(choices=("mlflow", "none"))
    uri: str = ""
    experiment: str = "stance"


@dataclass
class DecisionConfig:
    """How probabilities become label sets; fitted on validation."""

    operating_point: str = "max_f1"
    calibration: list[str] = limited(list(METHODS), choices=METHODS)
    band: float = limited(0.1, low=0, high=0.5)


@dataclass
class TrainConfig:
    """`train.py`: one config, one classifier, one run."""

    name: str = MISSING
    seed: int = limited(low=0, high=HIGHEST_SEED)
    threads: int = limited(low=0)
    codebook: dict[str, Any] = MISSING
    data: DataConfig = MISSING
    model: ModelConfig = MISSING
    decision: DecisionConfig = field(default_factory=DecisionConfig)
    tracking: TrackingConfig = MISSING
    evaluate_on: list[str] = limited(choices=("validation", "test"))
    behaviour: str | None = None
    resamples: int = limited(low=100)
    models_dir: str = MISSING


@dataclass
class GatesConfig:
    """What a model must hold to become champion (`evaluate.py promote=true`)."""

    f1_floor: float = limited(low=0, high=1)
    ece_ceiling: float = limited(low=0, high=1)
    behaviour: str | None = None
    behaviour_floor: float = limited(low=0, high=1)
    behaviour_rule_floor: float = limited(low=0, high=1)
    latency_ceiling_ms: float = limited(above=0)
    tolerance: float = limited(low=0, high=1)


@dataclass
class EvaluateConfig:
    """`evaluate.py`: judge saved models on one labelled file, compare them, promote the best."""

    models: list[str] = MISSING
    data_file: str = MISSING
    columns: DataConfig = MISSING
    operating_point: str | None = None
    resamples: int = limited(low=100)
    seed: int = limited(low=0)
    pool_seeds: bool = MISSING
    report: bool = MISSING
    promote: bool = MISSING
    registered_name: str = MISSING
    gates: GatesConfig = field(default_factory=GatesConfig)
    allow_overlap: bool = MISSING
    output: str | None = None
    tracking: TrackingConfig = MISSING
    models_dir: str = MISSING


@dataclass
class SparkConfig:
    """Where `engine=spark` runs, and what computes there."""

    master: str | None = None
    engine: str = limited("auto", choices=("auto", "torch", "onnx", "onnx_int8"))
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class PredictConfig:
    """`predict.py`: label every sentence of documents."""

    input: str = MISSING
    input_format: str = limited(choices=("txt", "csv", "tsv", "jsonl"))
    output: str | None = None
    model_dir: str = MISSING
    engine: str = limited(choices=("auto", "torch", "onnx", "onnx_int8", "spark"))
    spark: SparkConfig = field(default_factory=SparkConfig)
    cascade: bool = MISSING
    operating_point: str | None = None
    workers: int = limited(low=0, high=1024)
    unit: str = limited(choices=("document", "sentence"))
    text_column: str = MISSING
    id_column: str = ""
    tsv_quotes: bool = MISSING
    longest_record: int = limited(low=1000)
    window_size: int = limited(low=1000)
    defuse_formulas: bool = MISSING
    report: bool = MISSING
    report_by: list[str] | None = None


@dataclass
class QueueConfig:
    """What the sentences of a queue are chosen by (`label.py input=...`)."""

    budget: int = limited(low=1)
    random_share: float = limited(low=0, high=1)
    uncertainty: float = limited(low=0)
    disagreement: float = limited(low=0)
    rarity: float = limited(low=0)
    diversity: bool = MISSING
    near: float = limited(above=0, high=1)


@dataclass
class EntailmentConfig:
    """An entailment model that votes on the codebook's hypotheses; an empty `checkpoint`: none."""

    checkpoint: str = ""
    revision: str = ""
    accept: float = limited(0.7, low=0, high=1)
    reject: float = limited(0.3, low=0, high=1)
    batch_size: int = limited(16, low=1)


@dataclass
class LabelConfig:
    """`label.py`: articles to a queue, a queue out, answers in, a corpus; or check or split one."""

    codebook: dict[str, Any] = MISSING
    data: DataConfig = MISSING
    check: str | None = None
    split: str | None = None
    input: str | None = None
    queue: str | None = None
    answers: str | None = None
    output: str | None = None
    format: str = limited(
        choices=("auto", "label_studio", "doccano", "argilla", "prodigy", "table")
    )
    report: bool = MISSING
    serve: bool = MISSING
    annotator: str = ""
    adjudication: str = limited(choices=("majority", "dawid_skene"))
    base: str | None = None
    gold: str | None = None
    model_dir: str | None = None
    entailment: EntailmentConfig = field(default_factory=EntailmentConfig)
    choose: QueueConfig = field(default_factory=QueueConfig)
    text_column: str = MISSING
    id_column: str = ""
    tsv_quotes: bool = MISSING
    longest_record: int = limited(low=1000)
    folds: int = limited(low=2)
    validation_share: float = limited(low=0, high=1)
    test_share: float = limited(low=0, high=1)
    port: int = limited(low=0, high=65535)
    resamples: int = limited(low=100)
    seed: int = limited(low=0, high=HIGHEST_SEED)


def register_schemas() -> None:
    """Make the schemas known to Hydra under the names that the YAML files begin with."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="predict_schema", node=PredictConfig)
    store.store(name="label_schema", node=LabelConfig)
    store.store(group="data", name="data_schema", node=DataConfig)
    store.store(group="tracking", name="tracking_schema", node=TrackingConfig)
    store.store(group="model", name="rules_schema", node=RulesConfig)
    store.store(group="model", name="tfidf_schema", node=TfidfConfig)
    store.store(group="model", name="transformer_schema", node=TransformerConfig)


def read_config(values: DictConfig, schema: type[T]) -> T:
    """Turn a composed config into the dataclass `schema`, with ranges checked.

    Raises:
        UserError: a required key has no value, or a value lies outside its range; the message
            gives the dotted key.
    """
    missing = sorted(OmegaConf.missing_keys(values))
    if missing:
        raise UserError(f"{missing[0]}: this key needs a value, as in `{missing[0]}=VALUE`")
    config = cast(T, OmegaConf.to_object(values))
    _check_ranges(config, "")
    decision = getattr(config, "decision", None)
    for key, point in (
        ("decision.operating_point", getattr(decision, "operating_point", None)),
        ("operating_point", getattr(config, "operating_point", None)),
    ):
        if point is not None:
            _check_point(key, point)
    return config


def columns_of(data: DataConfig) -> Columns:
    """Return the column names that a data config gives.

    Raises:
        UserError: the separator of labels is empty.
    """
    if not data.label_separator:
        raise UserError("label_separator: '': expected what stands between labels, such as ','")
    return Columns(
        text=data.text_column,
        labels=data.label_column,
        id=data.id_column,
        group=data.group_column,
        separator=data.label_separator,
        quotes=data.tsv_quotes,
    )


def parameters(config: TrainConfig) -> dict[str, str | int | float | bool]:
    """Return the settings worth comparing between runs, flat, at most some forty."""
    model = {
        f"model.{key}": value
        for key, value in dataclasses.asdict(config.model).items()
        if key not in ("name", "sha256", "export") and value is not None
    }
    return {
        "model": config.model.name,
        "seed": config.seed,
        "data": config.data.name,
        "codebook": f"{config.codebook['name']} {config.codebook['version']}",
        "decision.operating_point": config.decision.operating_point,
        "decision.calibration": ", ".join(config.decision.calibration),
        "decision.band": config.decision.band,
        **model,
    }


def _check_point(key: str, point: str) -> None:
    try:
        check_operating_point(point)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error


def _check_ranges(config: Any, prefix: str) -> None:
    for item in dataclasses.fields(config):
        value, key = getattr(config, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            _check_ranges(value, f"{key}.")
        elif isinstance(value, list):
            for element in value:
                _check_value(element, key, item.metadata)
        elif value is not None:
            _check_value(value, key, item.metadata)


def _check_value(value: Any, key: str, limits: Any) -> None:
    low, high, above = limits.get("low"), limits.get("high"), limits.get("above")
    choices = limits.get("choices")
    if choices and value not in choices:
        raise UserError(f"{key}: {value!r} is not among {', '.join(choices)}")
    if low is not None and not value >= low:
        raise UserError(f"{key}: {value} is below {low}, the lowest that makes sense")
    if above is not None and not value > above:
        raise UserError(f"{key}: {value} must be greater than {above}")
    if high is not None and not value <= high:
        raise UserError(f"{key}: {value} is above {high}, the highest that makes sense")


def one_line(error: Exception) -> str:
    """Shape an error of Hydra or OmegaConf into one line that begins with the key."""
    parts = [str(error)] + ([str(error.__cause__)] if error.__cause__ else [])
    lines = [line.strip() for part in parts for line in part.splitlines()]
    keys = [line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")]
    noise = re.compile(r"full_key:|object_type=|reference_type=|Set the environment|To append")
    kept = list(dict.fromkeys(line for line in lines if line and not noise.match(line)))
    message = "; ".join(kept)
    return f"{keys[0]}: {message}" if keys and not message.startswith(keys[0]) else message
