import json
from pathlib import Path

import pytest
import yaml

from stance.codebook import Codebook, read_codebook
from stance.errors import UserError

CODEBOOKS = Path(__file__).parents[1] / "conf" / "codebook"

SMALL = """\
name: weather
version: "1.0"
multi_label: true
rules: {1: The sentence decides.}
patterns: {wet: [rain, drizzle]}
labels:
  - name: forecast
    definition: Somebody says what the weather will be.
    crosswalk: {scheme: ["045"]}
    cues:
      - {name: word, rule: 1, pattern: '{wet}'}
  - name: report
    definition: Somebody says what the weather was.
"""


def written(directory: Path, text: str) -> Path:
    path = directory / "codebook.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_stance_codebook_is_read_with_its_labels_in_order():
    codebook = read_codebook(CODEBOOKS / "stance.yaml")
    assert codebook.names == ("condemnation", "threat", "mediation", "retaliation")
    assert codebook.version == "1.1"
    assert codebook.multi_label
    assert list(codebook.rules) == list(range(1, 12))
    assert all(label.definition and label.hypothesis and label.cues for label in codebook.labels)
    assert codebook.labels[2].crosswalk["cameo"] == ("045", "027", "028", "039")


def test_every_cue_of_the_stance_codebook_names_the_rule_it_rests_on():
    codebook = read_codebook(CODEBOOKS / "stance.yaml")
    assert all(cue.rule in codebook.rules for label in codebook.labels for cue in label.cues)


def test_the_plover_codebook_is_read_as_single_label_without_cues():
    codebook = read_codebook(CODEBOOKS / "plover.yaml")
    assert len(codebook.names) == 15
    assert codebook.names[0] == "AGREE" and codebook.names[-1] == "ASSAULT"
    assert not codebook.multi_label
    assert all(label.hypothesis and not label.cues for label in codebook.labels)


@pytest.mark.parametrize("name", ["stance", "plover"])
def test_a_codebook_survives_the_way_through_json(name):
    codebook = read_codebook(CODEBOOKS / f"{name}.yaml")
    copy = Codebook.from_mapping(json.loads(json.dumps(codebook.to_mapping())))
    assert copy == codebook
    assert copy.digest == codebook.digest


def test_the_digest_ignores_comments_and_layout(tmp_path):
    tidy = read_codebook(written(tmp_path, SMALL)).digest
    rewritten = "# a remark\n" + yaml.safe_dump(yaml.safe_load(SMALL), sort_keys=True, indent=4)
    assert rewritten != SMALL
    assert read_codebook(written(tmp_path, rewritten)).digest == tidy


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("the weather was", "the weather had been"),
        ("rain, drizzle", "rain, hail"),
        ("multi_label: true", "multi_label: false"),
        ("name: report", "name: record"),
    ],
)
def test_the_digest_changes_with_the_content(tmp_path, old, new):
    before = read_codebook(written(tmp_path, SMALL)).digest
    assert read_codebook(written(tmp_path, SMALL.replace(old, new))).digest != before


def test_the_digest_changes_with_the_order_of_the_labels(tmp_path):
    codebook = read_codebook(written(tmp_path, SMALL))
    values = codebook.to_mapping()
    values["labels"].reverse()
    assert Codebook.from_mapping(values).digest != codebook.digest


def test_an_empty_label_set_is_shown_as_none():
    codebook = read_codebook(CODEBOOKS / "stance.yaml")
    assert codebook.show([]) == "none"
    assert codebook.show(["threat", "retaliation"]) == "threat, retaliation"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('version: "1.0"\n', "", "the key 'version' is missing"),
        ("multi_label", "multilabel", "the key 'multi_label' is missing"),
        ("rules:", "ruels:", "unknown key 'ruels'"),
        ("multi_label: true", "multi_label: perhaps", "multi_label must be true or false"),
        ("{1: The", "{one: The", "rules must map numbers to texts"),
        ("name: weather", "name: 7", "name must be text, not 7"),
        ("name: report", "name: none", "'none' cannot be a label name"),
        ("name: report", "name: no", "name must be text, not False"),
        ("name: report", "name: re/port", "'re/port' cannot be a label name"),
        ("name: report", "name: forecast", "the label 'forecast' stands there twice"),
        ("rule: 1", "rule: 9", "the codebook has no rule 9"),
        ("rule: 1", "rule: '1'", "the codebook has no rule '1'"),
        ("rule: 1,", "", "the key 'rule' is missing"),
        ("rule: 1,", "rule: 1, negatable: 3,", "negatable must be true or false, not 3"),
        ("rule: 1,", "rule: 1, unless: rain,", "expected names and patterns, found 'rain'"),
        ("pattern: '{wet}'", "pattern: []", "expected a pattern or a list of patterns"),
        ("[rain, drizzle]", "[rain, 3]", "expected a pattern or a list of patterns"),
        ('["045"]', "[045]", "expected lists of quoted codes"),
        ("    cues:\n", "    cues: word\n    remark:\n", "unknown key 'remark'"),
        ("    definition: Somebody says what the weather was.\n", "", "'definition' is missing"),
        ("Somebody says what the weather was.", "", "definition must be text, not None"),
        ("name: weather\n", "name: weather\nname: again\n", "the key 'name' stands there twice"),
        ("labels:", "labels: [", "not a YAML file"),
    ],
)
def test_a_mistake_is_refused_in_one_line_that_names_it(tmp_path, old, new, message):
    assert old in SMALL
    path = written(tmp_path, SMALL.replace(old, new))
    with pytest.raises(UserError) as refusal:
        read_codebook(path)
    assert message in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_cue_that_stands_twice_under_a_label_is_refused(tmp_path):
    cue = "      - {name: word, rule: 1, pattern: '{wet}'}\n"
    path = written(tmp_path, SMALL.replace(cue, cue + cue))
    with pytest.raises(UserError, match="forecast: the cue 'word' stands there twice"):
        read_codebook(path)


@pytest.mark.parametrize("text", ["", "- a list", "just text"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    with pytest.raises(UserError, match="a codebook is a mapping"):
        read_codebook(written(tmp_path, text))


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"absent\.yaml: cannot read the codebook"):
        read_codebook(tmp_path / "absent.yaml")


def test_labels_that_are_no_list_are_refused(tmp_path):
    text = SMALL[: SMALL.index("labels:")] + "labels: {}\n"
    with pytest.raises(UserError, match="labels must be a list of at least one label"):
        read_codebook(written(tmp_path, text))
