"""The label scheme as data: names in their fixed order, meaning, rules and cue rules.

Everything else in the package takes label names, their order and their meaning from a `Codebook`;
no other module names a label. A codebook is one YAML file (`conf/codebook/*.yaml`), and travels
inside every saved model, so that a model can be read without the project that trained it.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from stance.errors import UserError

NONE = "none"
"""How an empty label set is shown. It is not a label, and no label may bear this name."""


@dataclass(frozen=True)
class CueRule:
    """One way in which words report a label; `stance.cues` says how the fields act together.

    `requires` and `unless` map the reason why a cue does not count to a context that must,
    or must not, be found around it. `negatable` and `speculative` say whether the codebook's
    patterns of these names can take the cue away too.
    """

    name: str
    rule: int
    pattern: str
    requires: Mapping[str, str] = field(default_factory=dict)
    unless: Mapping[str, str] = field(default_factory=dict)
    negatable: bool = True
    speculative: bool = True


@dataclass(frozen=True)
class Label:
    """One label: its name, meaning, entailment hypothesis, standard codes and cue rules."""

    name: str
    definition: str
    hypothesis: str
    crosswalk: Mapping[str, Sequence[str]] = field(default_factory=dict)
    cues: tuple[CueRule, ...] = ()


@dataclass(frozen=True)
class Codebook:
    """A label scheme. `labels` fixes the column order of every array, file and table."""

    name: str
    version: str
    multi_label: bool
    unit: str
    labels: tuple[Label, ...]
    rules: Mapping[int, str] = field(default_factory=dict)
    patterns: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The label names in their fixed order."""
        return tuple(label.name for label in self.labels)

    @property
    def digest(self) -> str:
        """SHA-256 of the codebook's content, whatever the file's layout and comments."""
        canonical = json.dumps(self.to_mapping(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def without_cues(self) -> "Codebook":
        """Return what people label by: everything but the cue rules, which only models look at."""
        bare = tuple(replace(label, cues=()) for label in self.labels)
        return replace(self, labels=bare, patterns={})

    def show(self, labels: Sequence[str]) -> str:
        """Write a label set for a reader: names joined by commas, or `none`."""
        return ", ".join(labels) if labels else NONE

    def to_mapping(self) -> dict[str, Any]:
        """Return the codebook as plain values that `from_mapping` reads back."""
        return {
            "name": self.name,
            "version": self.version,
            "multi_label": self.multi_label,
            "unit": self.unit,
            "rules": {int(number): text for number, text in self.rules.items()},
            "patterns": dict(self.patterns),
            "labels": [
                {
                    "name": label.name,
                    "definition": label.definition,
                    "hypothesis": label.hypothesis,
                    "crosswalk": {key: list(codes) for key, codes in label.crosswalk.items()},
                    "cues": [vars(cue) for cue in label.cues],
                }
                for label in self.labels
            ],
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str = "codebook") -> "Codebook":
        """Build a codebook from plain values.

        Raises:
            UserError: a key is missing, misspelt or of the wrong type; `source` is named.
        """
        _check_keys(values, _CODEBOOK_KEYS, _CODEBOOK_OPTIONAL, source)
        if not isinstance(values["multi_label"], bool):
            raise UserError(
                f"{source}: multi_label must be true or false, not {values['multi_label']!r}"
            )
        if not isinstance(values["labels"], list) or not values["labels"]:
            raise UserError(f"{source}: labels must be a list of at least one label")
        try:
            rules = {int(key): str(text) for key, text in (values.get("rules") or {}).items()}
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{source}: rules must map numbers to texts: {error}") from error
        version = values["version"]
        if isinstance(version, bool) or not isinstance(version, str | int | float):
            raise UserError(f"{source}: version must be text, not {version!r}")
        labels = tuple(
            _label(entry, f"{source}: labels[{position}]", rules)
            for position, entry in enumerate(values["labels"])
        )
        _check_names([label.name for label in labels], "label", source)
        for label in labels:
            _check_names([cue.name for cue in label.cues], "cue", f"{source}: {label.name}")
        return cls(
            name=_text(values, "name", source),
            version=str(version),
            multi_label=values["multi_label"],
            unit=_text(values, "unit", source) if "unit" in values else "sentence",
            labels=labels,
            rules=rules,
            patterns=_patterns(values.get("patterns"), f"{source}: patterns"),
        )


_CODEBOOK_KEYS = {"name", "version", "multi_label", "labels"}
_CODEBOOK_OPTIONAL = {"unit", "rules", "patterns"}
_LABEL_KEYS = {"name", "definition"}
_LABEL_OPTIONAL = {"hypothesis", "crosswalk", "cues"}
_CUE_KEYS = {"name", "rule", "pattern"}
_CUE_OPTIONAL = {"requires", "unless", "negatable", "speculative"}


def read_codebook(path: Path) -> Codebook:
    """Read a codebook from a YAML file.

    Raises:
        UserError: the file is missing, is not YAML, or does not describe a codebook.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)  # a SafeLoader
    except OSError as error:
        raise UserError(f"{path}: cannot read the codebook: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a codebook is a mapping with the keys {sorted(_CODEBOOK_KEYS)}")
    return Codebook.from_mapping(values, str(path))


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which plain YAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in written:
            if written.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _label(entry: Any, where: str, rules: Mapping[int, str]) -> Label:
    _check_keys(entry, _LABEL_KEYS, _LABEL_OPTIONAL, where)
    cues = entry.get("cues") or []
    if not isinstance(cues, list):
        raise UserError(f"{where}: cues must be a list, not {cues!r}")
    return Label(
        name=_text(entry, "name", where),
        definition=_text(entry, "definition", where),
        hypothesis=_text(entry, "hypothesis", where) if entry.get("hypothesis", "") != "" else "",
        crosswalk=_crosswalk(entry.get("crosswalk"), f"{where}: crosswalk"),
        cues=tuple(
            _cue(cue, f"{where}.cues[{position}]", rules) for position, cue in enumerate(cues)
        ),
    )


def _crosswalk(values: Any, where: str) -> dict[str, tuple[str, ...]]:
    if values is None:
        return {}
    if not isinstance(values, Mapping) or not all(
        isinstance(codes, list) and all(isinstance(code, str) for code in codes)
        for codes in values.values()
    ):
        # 045 without quotes would be the number 37 in YAML
        raise UserError(f"{where}: expected lists of quoted codes, found {values!r}")
    return {str(scheme): tuple(codes) for scheme, codes in values.items()}


def _cue(entry: Any, where: str, rules: Mapping[int, str]) -> CueRule:
    _check_keys(entry, _CUE_KEYS, _CUE_OPTIONAL, where)
    where = f"{where} {entry['name']!r}"
    if type(entry["rule"]) is not int or (rules and entry["rule"] not in rules):
        raise UserError(f"{where}: the codebook has no rule {entry['rule']!r}")
    for key in ("negatable", "speculative"):
        if not isinstance(entry.get(key, True), bool):
            raise UserError(f"{where}: {key} must be true or false, not {entry[key]!r}")
    return CueRule(
        name=_text(entry, "name", where),
        rule=entry["rule"],
        pattern=_pattern(entry["pattern"], f"{where}: pattern"),
        requires=_patterns(entry.get("requires"), f"{where}: requires"),
        unless=_patterns(entry.get("unless"), f"{where}: unless"),
        negatable=entry.get("negatable", True),
        speculative=entry.get("speculative", True),
    )


def _patterns(values: Any, where: str) -> dict[str, str]:
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected names and patterns, found {values!r}")
    return {str(name): _pattern(value, f"{where}: {name}") for name, value in values.items()}


def _pattern(value: Any, where: str) -> str:
    """Read a regular expression, given as text or as a list of alternatives."""
    alternatives = value if isinstance(value, list) else [value]
    if not alternatives or not all(isinstance(text, str) and text for text in alternatives):
        raise UserError(f"{where}: expected a pattern or a list of patterns, found {value!r}")
    return "|".join(alternatives)


def _text(values: Mapping[str, Any], key: str, where: str) -> str:
    """Read a text; an unquoted `no` or `1` in YAML is none."""
    if not isinstance(values[key], str) or not values[key].strip():
        raise UserError(f"{where}: {key} must be text, not {values[key]!r}")
    return str(values[key]).strip()


def _check_names(names: Sequence[str], what: str, where: str) -> None:
    for name in names:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or name == NONE:
            raise UserError(f"{where}: {name!r} cannot be a {what} name")
        if names.count(name) > 1:
            raise UserError(f"{where}: the {what} {name!r} stands there twice")


def _check_keys(values: Any, needed: set[str], optional: set[str], where: str) -> None:
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected keys and values, found {values!r}")
    missing = sorted(needed - values.keys())
    unknown = sorted(map(str, values.keys() - needed - optional))
    if missing:
        raise UserError(f"{where}: the key {missing[0]!r} is missing")
    if unknown:
        raise UserError(
            f"{where}: unknown key {unknown[0]!r}; known are {sorted(needed | optional)}"
        )
