import json

import numpy as np
import pytest

from stance.classifiers.rules import RulesClassifier
from stance.codebook import Codebook
from stance.corpus.examples import Example, Split
from stance.errors import UserError

CODEBOOK = Codebook.from_mapping(
    {
        "name": "weather",
        "version": "1",
        "multi_label": True,
        "patterns": {"negated": "no @"},
        "labels": [
            {
                "name": "wet",
                "definition": "It is wet.",
                "cues": [
                    {"name": "rain", "rule": 1, "pattern": "rain"},
                    {"name": "cloud", "rule": 1, "pattern": "clouds?"},
                ],
            },
            {
                "name": "cold",
                "definition": "It is cold.",
                "cues": [{"name": "snow", "rule": 1, "pattern": "snow"}],
            },
            {"name": "windy", "definition": "It is windy."},
        ],
    }
)


def split(*rows: tuple[str, tuple[str, ...]]) -> Split:
    examples = tuple(
        Example(id=str(number), text=text, labels=labels, group=str(number))
        for number, (text, labels) in enumerate(rows)
    )
    return Split("train", examples, CODEBOOK)


TRAIN = split(
    ("rain at noon", ("wet",)),
    ("rain at dusk", ("wet",)),
    ("rain on film", ()),
    ("clouds", ()),
    ("no rain", ()),
    ("snow", ("cold",)),
    ("sleet", ("wet", "cold")),
)


def silent(metrics: dict[str, float], step: int) -> None:
    del metrics, step


def test_before_training_every_cue_counts_alike():
    probabilities = RulesClassifier(CODEBOOK).predict_proba(["rain", "snow", "no rain", "sun"])
    expected = [[0.8, 0, 0], [0, 0.8, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(probabilities, expected)


def test_cues_of_one_label_add_up_as_a_noisy_or():
    probabilities = RulesClassifier(CODEBOOK).predict_proba(["rain and clouds, then snow"])
    np.testing.assert_allclose(probabilities, [[1 - 0.2 * 0.2, 0.8, 0]])


def test_a_cue_that_stands_twice_counts_once():
    probabilities = RulesClassifier(CODEBOOK).predict_proba(["rain, rain, rain"])
    np.testing.assert_allclose(probabilities, [[0.8, 0, 0]])


def test_training_learns_smoothed_precisions():
    classifier = RulesClassifier(CODEBOOK)
    classifier.fit(TRAIN, split(), silent)
    # Two of three, none of one, one of one; the prior of 0.8 weighs like two sentences.
    assert classifier.precision == pytest.approx(
        {"wet/rain": 3.6 / 5, "wet/cloud": 1.6 / 3, "cold/snow": 2.6 / 3}
    )
    np.testing.assert_allclose(
        classifier.predict_proba(["rain, clouds"]), [[1 - (1.4 / 5) * (1.4 / 3), 0, 0]]
    )


def test_training_reports_what_the_cues_can_find():
    seen: list[tuple[dict[str, float], int]] = []
    validation = split(("clouds", ("wet",)), ("hail", ("cold",)))
    RulesClassifier(CODEBOOK).fit(
        TRAIN, validation, lambda metrics, step: seen.append((metrics, step))
    )
    ((metrics, step),) = seen
    assert step == 0
    assert metrics == pytest.approx(
        {"train/cue_precision": 3 / 5, "train/cue_recall": 3 / 5, "validation/cue_recall": 1 / 2}
    )


def test_probabilities_have_the_shape_and_type_that_all_classifiers_share(stance_codebook):
    probabilities = RulesClassifier(stance_codebook).predict_proba(
        ["Fiji condemned the raid and vowed revenge.", "It rained."]
    )
    assert probabilities.shape == (2, 4)
    assert probabilities.dtype == np.float64
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert (probabilities[0] > 0.5).tolist() == [True, True, False, True]
    assert RulesClassifier(stance_codebook).predict_proba([]).shape == (0, 4)


def test_a_codebook_without_cues_is_never_sure_of_anything(single_codebook):
    classifier = RulesClassifier(single_codebook)
    assert classifier.predict_proba(["praise", "blame"]).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_saved_classifier_predicts_the_same(tmp_path):
    classifier = RulesClassifier(CODEBOOK)
    classifier.fit(TRAIN, split(), silent)
    classifier.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["rules.json"]
    loaded = RulesClassifier.load(tmp_path, CODEBOOK)
    texts = ["rain", "clouds and rain", "snow", ""]
    np.testing.assert_array_equal(loaded.predict_proba(texts), classifier.predict_proba(texts))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the cue precisions"),
        ("{", "not a file of cue precisions"),
        ("[]", "not a file of cue precisions"),
        ('{"precisions": {}}', "not a file of cue precisions"),
        ('{"precision": {"wet/rain": 1}}', "not those of the codebook"),
        ('{"precision": {"wet/rain": 2, "wet/cloud": 1, "cold/snow": 1}}', "wet/rain must lie in"),
        ('{"precision": {"wet/rain": 1, "wet/cloud": NaN, "cold/snow": 1}}', "wet/cloud must lie"),
        ('{"precision": {"wet/rain": 1, "wet/cloud": 1, "cold/snow": "1"}}', "cold/snow must lie"),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path, content, message):
    if content is not None:
        (tmp_path / "rules.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"rules\.json") as refusal:
        RulesClassifier.load(tmp_path, CODEBOOK)
    assert message in str(refusal.value)


def test_the_saved_file_is_plain_json(tmp_path):
    RulesClassifier(CODEBOOK).save(tmp_path)
    content = json.loads((tmp_path / "rules.json").read_text(encoding="utf-8"))
    assert content == {"precision": {"wet/rain": 0.8, "wet/cloud": 0.8, "cold/snow": 0.8}}
