"""The behaviour suite: what it demands, how it is judged, and that no corpus has seen it."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from sklearn.feature_extraction.text import CountVectorizer

from stance.codebook import Codebook
from stance.corpus.examples import normal_form, read_split
from stance.errors import UserError
from stance.evaluation.behaviour import (
    ACTORS_FILE,
    Case,
    PassRate,
    failures,
    pass_rates,
    pass_rates_by_rule,
    read_suite,
    run_suite,
    variants,
)
from stance.text.normalize import normalize

SUITE = ROOT / "data/behaviour"
CORPUS = sorted((ROOT / "data/stance").glob("*.jsonl"))


@pytest.fixture(scope="module")
def suite(stance_codebook: Codebook) -> list[Case]:
    return read_suite(SUITE, stance_codebook)


def sentences(cases: Sequence[Case]) -> list[str]:
    """Return every sentence of a suite as it was written, before any change."""
    written = []
    for path in sorted(SUITE.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            written += [values[key] for key in ("text", "weaker", "stronger") if key in values]
    assert len(written) == sum(len(case.texts) if not case.invariant else 1 for case in cases)
    return written


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def by_words(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Label a sentence by the words `good` and `bad` in it: a model simple enough to foresee."""
    said = np.array([["good" in words(text), "bad" in words(text)] for text in texts])
    lengths = np.array([[min(len(text), 100) / 100] for text in texts])
    return np.where(said, 0.5 + lengths / 2, lengths / 4), said.astype(np.int8)


def write_suite(folder: Path, *cases: object) -> Path:
    (folder / ACTORS_FILE).write_text(json.dumps({"here": ["Ada", "the bad bank"]}))
    (folder / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    return folder


HEAD = {"rule": 1, "construct": "plain"}
HAS = {**HEAD, "id": "1", "text": "A good day.", "has": ["praise"], "lacks": ["blame"]}


def test_hand_made_outcomes(codebook: Codebook, tmp_path: Path) -> None:
    other = {"rule": 1, "construct": "other"}
    pair = {**HEAD, "pair": "p"}
    cases = read_suite(
        write_suite(
            tmp_path,
            HAS,
            {**pair, "id": "2", "text": "Not good.", "has": [], "lacks": ["praise"]},
            {**pair, "id": "3", "text": "Good.", "has": ["praise"], "lacks": []},
            {**other, "id": "4", "text": "{A} met {B}.", "same_under": "actors"},
            {**other, "id": "5", "text": "So good.", "same_under": "case"},
            {**other, "id": "6", "weaker": "Bad.", "stronger": "Bad, bad.", "label": "blame"},
            {**other, "id": "7", "weaker": "Bad.", "stronger": "Good.", "label": "blame"},
        ),
        codebook,
    )
    outcomes = run_suite(by_words, cases, codebook)
    assert [outcome.passed for outcome in outcomes] == [True, False, True, True, True, True, False]
    rates = pass_rates(outcomes)
    assert {name: (rate.passed, rate.total) for name, rate in rates.items()} == {
        "other": (3, 4),
        "plain": (2, 3),
        "pairs": (0, 1),
        "all": (5, 7),
    }
    assert {rule: rate.total for rule, rate in pass_rates_by_rule(outcomes).items()} == {1: 7}
    failed = failures(outcomes)
    assert failed["id"] == ["2", "7"]
    assert failed["wanted"] == ["not praise", "no less blame for: Good."]
    assert failed["said"][0] == "praise"


def test_a_label_that_hangs_on_the_actors_name_fails(codebook: Codebook, tmp_path: Path) -> None:
    case = {**HEAD, "id": "1", "text": "{A} came.", "same_under": "actors"}
    (outcome,) = run_suite(by_words, read_suite(write_suite(tmp_path, case), codebook), codebook)
    assert not outcome.passed
    assert "none; but blame for: The bad bank came." in outcome.said or "blame; but" in outcome.said


def test_the_interval_of_a_pass_rate_is_wilsons() -> None:
    """By hand for 8 of 10: (0.8 + 1.92073 / 10) / 1.384146 -+ 0.226577."""
    rate = PassRate(8, 10)
    assert (rate.low, rate.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert PassRate(0, 5).low == pytest.approx(0)
    assert PassRate(5, 5).high == pytest.approx(1)


@pytest.mark.parametrize("change", ["case", "typography"])
def test_these_changes_leave_the_words_as_they_are(change: str) -> None:
    text = '"We won\'t go," she said - twice...'
    changed = list(variants(text, change, []))
    assert len(set(changed)) == len(changed) > 2
    assert len({normalize(one).lower() for one in changed}) == 1


def test_the_first_variant_is_the_sentence_itself_and_draws_repeat() -> None:
    actors = ["Ada", "the bank", "a union", "Oslo"]
    first, *others = variants("{A} met {B}.", "actors", actors)
    assert list(variants("{A} met {B}.", "actors", actors)) == [first, *others]
    assert len({first, *others}) > 5
    for change in ("case", "typography", "frame"):
        assert next(variants("So it is.", change, actors)) == "So it is."


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({**HAS, "has": ["praise", "joy"]}, "the codebook 'verdicts' has no label 'joy'"),
        ({**HAS, "rule": 9}, "the codebook 'verdicts' has no rule 9"),
        ({**HAS, "text": ""}, "'text' must be a text that is not empty, found ''"),
        ({**HAS, "has": [], "lacks": []}, "must demand something"),
        ({**HAS, "has": ["blame"]}, "no label twice"),
        ({**HAS, "comment": "x"}, "are those of no kind of case"),
        ({**HEAD, "id": "1", "text": "x"}, "are those of no kind of case"),
        ({**HEAD, "id": "1", "text": "x", "same_under": "rain"}, "same_under is one of"),
        ({**HEAD, "id": "1", "text": "x", "same_under": "actors"}, "needs a place {A}"),
        ({**HAS, "pair": "p"}, "the pair 'p' has 1 cases, not two"),
        (["a"], "expected an object"),
    ],
)
def test_a_line_that_is_no_case_is_refused(
    codebook: Codebook, tmp_path: Path, case: object, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_suite(write_suite(tmp_path, case), codebook)


def test_a_suite_that_cannot_be_read_is_refused(codebook: Codebook, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no behaviour suite here"):
        read_suite(tmp_path, codebook)
    with pytest.raises(UserError, match=r"cases.jsonl:2: the id '1' stands also at .*:1"):
        read_suite(write_suite(tmp_path, HAS, HAS), codebook)
    (tmp_path / "cases.jsonl").write_text("{\n")
    with pytest.raises(UserError, match=r"cases.jsonl:1: no behaviour case"):
        read_suite(tmp_path, codebook)
    (tmp_path / ACTORS_FILE).write_text("[]")
    with pytest.raises(UserError, match="expected a mapping from region to actor names"):
        read_suite(tmp_path, codebook)


def test_the_shipped_suite_covers_every_rule_label_and_kind(
    suite: list[Case], stance_codebook: Codebook
) -> None:
    assert len(suite) >= 400
    assert {case.rule for case in suite} == set(stance_codebook.rules)
    for demand in ("has", "lacks"):
        counts = Counter(label for case in suite for label in getattr(case, demand))
        assert min(counts[name] for name in stance_codebook.names) >= 40
    assert {case.label for case in suite if case.label} == set(stance_codebook.names)
    assert sum(case.pair is not None for case in suite) >= 300
    assert len(set(sentences(suite))) == len(sentences(suite))


def test_minimal_pairs_demand_opposite_things(suite: list[Case]) -> None:
    pairs: dict[str, list[Case]] = {}
    for case in suite:
        if case.pair:
            pairs.setdefault(case.pair, []).append(case)
    for one, other in pairs.values():
        assert set(one.has) & set(other.lacks) or set(other.has) & set(one.lacks), one.id


def test_the_actors_of_every_region_can_stand_for_each_other() -> None:
    regions = json.loads((SUITE / ACTORS_FILE).read_text(encoding="utf-8"))
    assert len(regions) >= 6
    names = [name for names in regions.values() for name in names]
    assert all(len(names) >= 20 for names in regions.values())
    assert len(set(names)) == len(names)
    for name in names:  # in the middle of a sentence, before 's, with a verb in the singular
        assert name[0].isupper() or name.startswith("the "), name


def test_a_model_that_says_nothing_keeps_no_minimal_pair(
    suite: list[Case], stance_codebook: Codebook
) -> None:
    def silent(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        nothing = np.zeros((len(texts), len(stance_codebook.names)))
        return nothing, nothing.astype(np.int8)

    rates = pass_rates(run_suite(silent, suite, stance_codebook))
    assert rates["pairs"].passed == 0
    assert rates["all"].rate < 0.7


def _frame(text: str) -> str:
    """Blank the actors: every capitalised word but the first, `{A}`, and every number."""
    first, *others = re.findall(r"\{?[\w']+\}?", normalize(text))
    kept = [word for word in others if not re.match(r"[A-Z{\d]", word)]
    return " ".join([first, *kept]).lower()


def test_no_corpus_shares_a_sentence_or_a_template_with_the_suite(
    suite: list[Case], stance_codebook: Codebook
) -> None:
    written = sentences(suite)
    assert CORPUS
    corpus = [text for path in CORPUS for text in read_split(path, "x", stance_codebook).texts]
    shared = {normal_form(text) for text in written} & {normal_form(text) for text in corpus}
    assert not shared

    vectorizer = CountVectorizer(binary=True, token_pattern=r"[\w']+")
    ours = vectorizer.fit_transform([_frame(text) for text in written])
    theirs = vectorizer.transform([_frame(text) for text in corpus])
    # Words of the corpus that the suite lacks count in the union too.
    sizes = np.array([len(set(_frame(text).split())) for text in corpus])
    both = (ours @ theirs.T).toarray().astype(float)
    union = np.asarray(ours.sum(axis=1)) + sizes[None, :] - both
    row, column = np.unravel_index(int((both / union).argmax()), both.shape)
    assert both[row, column] / union[row, column] < 0.8, f"{written[row]} / {corpus[column]}"


@pytest.mark.parametrize(("passed", "total"), [(0, 7), (7, 7), (53, 53), (1, 1), (3, 9)])
def test_an_interval_holds_its_rate(passed: int, total: int) -> None:
    rate = PassRate(passed, total)
    assert 0 <= rate.low <= rate.rate <= rate.high <= 1
