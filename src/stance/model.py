"""The one door to a trained model: a directory with its manifest, codebook, decision and weights.

`manifest.json` holds the SHA-256 of every file. It is checked before anything else is read, so a
damaged or foreign directory is refused and nothing in it is run or unpickled.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stance.classifiers.base import Classifier, Probabilities, Windowed
from stance.classifiers.build import load_classifier
from stance.classifiers.cascade import FirstStage, check_first_stage
from stance.classifiers.engines import TORCH
from stance.codebook import Codebook
from stance.corpus.examples import Split, decode_labels
from stance.decision import Decision
from stance.errors import UserError
from stance.evaluation.metrics import Judged

MANIFEST = "manifest.json"
DESCRIPTION = "stance.json"
CARD = "README.md"
SEEN = "seen.txt"
FORMAT = 1
CHAMPION = "champion"
"""The alias, beside the saved models, of the one that predicts unless another is named."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of n sentences.

    `probabilities` has shape (n, labels) and is calibrated; `label_sets` and `uncertain` have
    length n.
    """

    probabilities: Probabilities
    label_sets: list[tuple[str, ...]]
    uncertain: NDArray[np.bool_]


@dataclass
class StanceModel:
    """A classifier with its decision and codebook, and the record of how it came about.

    `seen` holds the keys (`sentence_key`) of the sentences it was trained and tuned on. A
    `first_stage` settles sentences before the classifier sees them; only `score` asks it.
    """

    name: str
    classifier: Classifier
    decision: Decision
    codebook: Codebook
    record: dict[str, Any] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()
    digest: str = ""
    first_stage: FirstStage | None = None

    def predict(self, texts: Sequence[str], operating_point: str | None = None) -> Prediction:
        """Label sentences, at the model's own operating point unless another is given."""
        calibrated, predicted = self.label(texts, operating_point)
        return Prediction(
            calibrated,
            decode_labels(predicted, self.codebook),
            self.decision.uncertain(calibrated, operating_point),
        )

    def label(
        self, texts: Sequence[str], operating_point: str | None = None
    ) -> tuple[Probabilities, NDArray[np.int8]]:
        """Return calibrated probabilities and 0/1 predictions, both of shape (n, labels)."""
        calibrated = self.probabilities(texts)
        return calibrated, self.decision.decide(calibrated, operating_point)

    def probabilities(self, texts: Sequence[str]) -> Probabilities:
        """Return calibrated probabilities, shape (n, labels)."""
        return self.decision.calibrate(self.classifier.predict_proba(texts))

    def score(self, texts: Sequence[str]) -> tuple[Probabilities, NDArray[np.int64]]:
        """Return calibrated probabilities, and in how many windows each sentence was read.

        A sentence that the first stage settles was read in none.
        """
        if self.first_stage:
            settled = self.first_stage.settled(texts)
            rest = replace(self, first_stage=None)
            scores = np.tile(self.first_stage.rates, (len(texts), 1))
            windows = np.zeros(len(texts), dtype=np.int64)
            left = [text for text, is_settled in zip(texts, settled, strict=True) if not is_settled]
            scores[~settled], windows[~settled] = rest.score(left)
            return scores, windows
        if isinstance(self.classifier, Windowed):
            raw, windows = self.classifier.predict_windows(texts)
            return self.decision.calibrate(raw), windows
        return self.probabilities(texts), np.ones(len(texts), dtype=np.int64)

    def judge(self, split: Split, operating_point: str | None = None) -> Judged:
        """Predict a labelled split and put prediction and gold side by side."""
        calibrated, predicted = self.label(split.texts, operating_point)
        return Judged(split.gold, calibrated, predicted, split.groups, self.codebook.names)

    def save(self, directory: Path, card: str, pictures: Mapping[str, bytes] | None = None) -> None:
        """Write the model beside `directory`, then put it in place of what stood there.

        Args:
            directory: where it shall lie.
            card: the model card, in Markdown.
            pictures: the files that the card shows, by name.

        Raises:
            UserError: the directory cannot be written.
        """
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            beside = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        except OSError as error:
            raise UserError(f"{directory}: cannot write a model: {error.strerror}") from error
        try:
            self.classifier.save(beside)
            description = {
                "format": FORMAT,
                "name": self.name,
                "kind": self.classifier.kind,
                "codebook": self.codebook.to_mapping(),
                "codebook_digest": self.codebook.digest,
                "decision": self.decision.to_mapping(),
                "record": self.record,
            }
            _write_json(beside / DESCRIPTION, description)
            (beside / SEEN).write_text("".join(f"{key}\n" for key in sorted(self.seen)))
            (beside / CARD).write_text(card, encoding="utf-8")
            for name, content in (pictures or {}).items():
                (beside / name).write_bytes(content)
            self.digest = seal(beside)
            beside.chmod(0o755)
            replace_model(beside, directory)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


@dataclass(frozen=True)
class ModelDescription:
    """What a saved model says of itself before its weights are loaded."""

    directory: Path
    name: str
    kind: str
    codebook: Codebook
    decision: Decision
    record: dict[str, Any]
    digest: str


def load_model(directory: Path, engine: str = TORCH, *, cascade: bool = False) -> StanceModel:
    """Verify and load a saved model.

    Args:
        directory: where it lies.
        engine: what computes a transformer, one of `ENGINES`.
        cascade: whether its first stage settles what it can.

    Raises:
        UserError: there is no model here, or a file is missing, foreign or changed, or the model
            has no such engine or no first stage.
    """
    return load_described(describe_model(directory), engine, cascade=cascade)


def describe_model(directory: Path) -> ModelDescription:
    """Verify a saved model and read what it says of itself.

    Raises:
        UserError: there is no model here, or a file is missing, foreign or changed.
    """
    with _readable(directory):
        digest = verify(directory)
        values = json.loads((directory / DESCRIPTION).read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise UserError(f"{directory}: model format {values['format']!r}, expected {FORMAT}")
        return ModelDescription(
            directory=directory,
            name=values["name"],
            kind=values["kind"],
            codebook=Codebook.from_mapping(values["codebook"], f"{directory}/{DESCRIPTION}"),
            decision=Decision.from_mapping(values["decision"]),
            record=values["record"],
            digest=digest,
        )


def load_described(
    description: ModelDescription, engine: str = TORCH, *, cascade: bool = False
) -> StanceModel:
    """Load the weights of a model whose files have been verified.

    Raises:
        UserError: a file cannot be read, or the model has no such engine or no first stage.
    """
    directory = description.directory
    if cascade:
        check_first_stage(directory)
    with _readable(directory):
        return StanceModel(
            name=description.name,
            classifier=load_classifier(
                description.kind, directory, description.codebook, engine=engine
            ),
            decision=description.decision,
            codebook=description.codebook,
            record=description.record,
            seen=frozenset((directory / SEEN).read_text().split()),
            digest=description.digest,
            first_stage=FirstStage.load(directory, description.codebook) if cascade else None,
        )


@contextlib.contextmanager
def _readable(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where, reason = error.filename or directory, error.strerror or error
        raise UserError(f"{where}: cannot be read: {reason}") from error
    except (ValueError, KeyError, TypeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{directory}: not a model that this version can load: {reason}") from error


def seal(directory: Path) -> str:
    """Write the manifest of a directory and return the model's digest."""
    files = {name: _sha256(directory / name) for name in _files(directory)}
    _write_json(directory / MANIFEST, {"files": files})
    return _digest(files)


def verify(directory: Path) -> str:
    """Hold that a directory is what its manifest says, and return the model's digest.

    Raises:
        UserError: the manifest is missing or damaged, or a file is missing, foreign or changed.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no saved model here; `make train` makes one")
    try:
        listed = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["files"]
        files = {str(name): str(digest) for name, digest in listed.items()}
    except FileNotFoundError as error:
        raise UserError(f"{directory}: not a saved model: {MANIFEST} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{directory / MANIFEST}: damaged: {error}") from error
    present = set(_files(directory))
    for name in sorted(files.keys() - present):
        raise UserError(f"{directory / name}: the manifest lists this file, but it is missing")
    for name in sorted(present - files.keys()):
        raise UserError(f"{directory / name}: this file is not in the manifest")
    for name, expected in files.items():
        if _sha256(directory / name) != expected:
            raise UserError(f"{directory / name}: damaged: its SHA-256 is not the manifest's")
    return _digest(files)


def place_for(models_dir: Path, name: str) -> Path:
    """Return the folder in which a model is to be saved; a saved model there will give way.

    Raises:
        UserError: the name is not that of a folder, or something else stands there.
    """
    if Path(name).name != name or name in ("", ".."):
        raise UserError(f"name: {name!r}: expected the name of one folder under {models_dir}")
    directory = models_dir / name
    if directory.is_symlink() or (directory.exists() and not (directory / MANIFEST).is_file()):
        raise UserError(f"name: {directory} stands there already and is no saved model")
    return directory


def point_alias(alias: Path, directory: Path) -> None:
    """Let the symbolic link `alias` point to a saved model, in one step."""
    beside = alias.with_name(f".{alias.name}-{os.getpid()}")
    beside.unlink(missing_ok=True)
    beside.symlink_to(os.path.relpath(directory.resolve(), alias.parent.resolve()))
    os.replace(beside, alias)


def check_alias(alias: Path) -> None:
    """Hold that a symbolic link can be put where `alias` says.

    Raises:
        UserError: something that is no link stands there.
    """
    if alias.exists() and not alias.is_symlink():
        raise UserError(f"{alias}: not a link to a model, and not replaced by one; move it away")


def _files(directory: Path) -> list[str]:
    return sorted(
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and path.name != MANIFEST
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(files: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()


def replace_model(beside: Path, directory: Path) -> None:
    """Put a model that was written beside a directory in the place of what stands there."""
    if directory.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{directory.name}-old-", dir=directory.parent))
        os.replace(directory, old / directory.name)
        os.replace(beside, directory)
        shutil.rmtree(old)
    else:
        os.replace(beside, directory)


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
