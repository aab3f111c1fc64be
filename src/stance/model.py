"""The one door to a trained model: a directory with its manifest, codebook, decision and weights.

`manifest.json` holds the SHA-256 of every file. It is checked before anything else is read, so a
damaged or foreign directory is refused and nothing in it is run or unpickled.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stance.classifiers.base import Classifier, Probabilities
from stance.classifiers.build import load_classifier
from stance.codebook import Codebook
from stance.corpus.examples import Split, decode_labels
from stance.decision import Decision
from stance.errors import UserError
from stance.evaluation.metrics import Judged

MANIFEST = "manifest.json"
DESCRIPTION = "stance.json"
CARD = "README.md"
FORMAT = 1


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
    """A classifier with its decision and codebook, and the record of how it came about."""

    name: str
    classifier: Classifier
    decision: Decision
    codebook: Codebook
    record: dict[str, Any] = field(default_factory=dict)
    digest: str = ""

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

    def judge(self, split: Split, operating_point: str | None = None) -> Judged:
        """Predict a labelled split and put prediction and gold side by side."""
        calibrated, predicted = self.label(split.texts, operating_point)
        return Judged(split.gold, calibrated, predicted, split.groups, self.codebook.names)

    def save(self, directory: Path, card: str) -> None:
        """Write the model beside `directory`, then put it in place of what stood there.

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
            (beside / CARD).write_text(card, encoding="utf-8")
            self.digest = seal(beside)
            beside.chmod(0o755)
            _replace(beside, directory)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def load_model(directory: Path) -> StanceModel:
    """Verify and load a saved model.

    Raises:
        UserError: there is no model here, or a file is missing, foreign or changed.
    """
    digest = verify(directory)
    try:
        description = json.loads((directory / DESCRIPTION).read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise UserError(
                f"{directory}: model format {description['format']!r}, expected {FORMAT}"
            )
        codebook = Codebook.from_mapping(description["codebook"], f"{directory}/{DESCRIPTION}")
        classifier = load_classifier(description["kind"], directory, codebook)
        return StanceModel(
            name=description["name"],
            classifier=classifier,
            decision=Decision.from_mapping(description["decision"]),
            codebook=codebook,
            record=description["record"],
            digest=digest,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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


def point_alias(alias: Path, directory: Path) -> None:
    """Let the symbolic link `alias` point to a saved model, in one step."""
    beside = alias.with_name(f".{alias.name}-{os.getpid()}")
    beside.unlink(missing_ok=True)
    beside.symlink_to(os.path.relpath(directory.resolve(), alias.parent.resolve()))
    os.replace(beside, alias)


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


def _replace(beside: Path, directory: Path) -> None:
    if directory.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{directory.name}-old-", dir=directory.parent))
        os.replace(directory, old / directory.name)
        os.replace(beside, directory)
        shutil.rmtree(old)
    else:
        os.replace(beside, directory)


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
