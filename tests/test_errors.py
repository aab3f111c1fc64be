"""The error analysis finds errors, doubtful labels and slices; its page is safe to open."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from stance.codebook import Codebook
from stance.corpus.examples import Example, Split
from stance.evaluation.errors import (
    EXPLAINED,
    Analysis,
    analyse,
    list_errors,
    slices,
    suspected_labels,
)
from stance.evaluation.metrics import Judged
from stance.evaluation.page import ModelPart, error_page
from stance.evaluation.paired import compare


def split_of(gold: np.ndarray, codebook: Codebook, texts: list[str] | None = None) -> Split:
    examples = tuple(
        Example(
            f"r{row}",
            texts[row] if texts else f"Sentence number {row} of the lot.",
            tuple(name for name, value in zip(codebook.names, labels, strict=True) if value),
            f"g{row // 4}",
            {"genre": ("wire", "brief")[row % 2], "note": f"unlike {row}", "year": row % 3},
        )
        for row, labels in enumerate(gold)
    )
    return Split("toy", examples, codebook)


def judge(gold: np.ndarray, probabilities: np.ndarray, codebook: Codebook) -> Judged:
    predicted = (probabilities >= 0.5).astype(np.int8)
    groups = [f"g{row // 4}" for row in range(len(gold))]
    return Judged(gold.astype(np.int8), probabilities, predicted, groups, codebook.names)


def test_errors_come_with_their_wrong_labels_the_most_confident_first(codebook: Codebook) -> None:
    gold = np.array([[1, 0], [0, 0], [1, 1], [0, 1]])
    probabilities = np.array([[0.4, 0.1], [0.2, 0.9], [0.7, 0.6], [0.8, 0.3]])
    errors = list_errors(split_of(gold, codebook), judge(gold, probabilities, codebook))
    assert [error.id for error in errors] == ["r1", "r3", "r0"]
    assert [(w.label, w.missed, w.probability) for w in errors[1].wrong] == [
        ("praise", False, 0.8),
        ("blame", True, 0.3),
    ]
    assert errors[1].probabilities == (("praise", 0.8), ("blame", 0.3))
    assert [error.distance for error in errors] == pytest.approx([0.9, 0.8, 0.6])


def separated(codebook: Codebook, rows: int = 200) -> tuple[np.ndarray, Judged]:
    """Return gold in which the first five rows are wrong, and a model that is nearly right."""
    generator = np.random.default_rng(0)
    truth = (generator.random((rows, 2)) < 0.4).astype(int)
    probabilities = np.clip(0.7 * truth + 0.3 * generator.random((rows, 2)), 0, 1)
    unsure = generator.permutation(np.arange(5, rows))[:12]
    probabilities[unsure, 0] = np.where(truth[unsure, 0] == 1, 0.45, 0.55)
    gold = truth.copy()
    gold[:5, 0] = 1 - gold[:5, 0]
    return gold, judge(gold, probabilities, codebook)


def test_planted_label_errors_are_suspected_and_honest_errors_seldom(codebook: Codebook) -> None:
    """Five labels are wrong; in twelve other rows the model errs, with little confidence."""
    _, judged = separated(codebook)
    suspected = set(suspected_labels([judged], multi_label=True))
    assert len(suspected & set(range(5))) >= 4
    assert len(suspected - set(range(5))) <= 2


def test_a_single_label_codebook_has_suspects_too(single_codebook: Codebook) -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, 150)
    probabilities = 0.1 + 0.7 * np.eye(3)[truth]
    unsure = np.arange(20, 32)
    probabilities[unsure] = (
        np.roll(probabilities[unsure], 1, axis=1) * 0.2 + 0.4 * np.eye(3)[truth[unsure]] * 0.5
    )
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    gold = truth.copy()
    gold[:4] = (gold[:4] + 1) % 3
    predicted = np.eye(3, dtype=np.int8)[probabilities.argmax(axis=1)]
    predicted[unsure] = np.roll(predicted[unsure], 1, axis=1)
    judged = Judged(
        np.eye(3, dtype=np.int8)[gold],
        probabilities,
        predicted,
        [str(i) for i in range(150)],
        single_codebook.names,
    )
    assert set(range(4)) <= set(suspected_labels([judged], multi_label=False))


def test_a_model_that_is_always_sure_makes_no_label_suspect(codebook: Codebook) -> None:
    """It cannot tell its own errors from the annotator's, so it accuses nobody."""
    gold = (np.random.default_rng(0).random((200, 2)) < 0.4).astype(int)
    never = np.full((200, 2), 0.02)
    assert suspected_labels([judge(gold, never, codebook)], multi_label=True) == []
    assert suspected_labels([judge(gold * 0, never, codebook)], multi_label=True) == []


def test_slices_are_the_fields_of_few_values(codebook: Codebook) -> None:
    gold, judged = separated(codebook, rows=120)
    found = list(slices(split_of(gold, codebook), judged))
    assert [(s.field, s.value, s.rows) for s in found if s.field in ("genre", "year")] == [
        ("genre", "brief", 60),
        ("genre", "wire", 60),
        ("year", "0", 40),
        ("year", "1", 40),
        ("year", "2", 40),
    ]
    assert {s.field for s in found} == {"genre", "year", "gold labels"}  # all of one length
    none = next(s for s in found if (s.field, s.value) == ("gold labels", "0"))
    assert none.f1_micro is None  # nothing to find: F1 is not defined
    assert none.positives == 0


def word_weights(text: str, label: str) -> list[tuple[str, float]]:
    return [*((word, float(len(word) - 4)) for word in text.split()), ("[praise/cue/fired]", 1.5)]


def parts(codebook: Codebook, text: str) -> tuple[Analysis, str]:
    gold = np.array([[1, 0], [0, 1]] * 20)
    probabilities = np.where(gold == 1, 0.9, 0.1)
    probabilities[0] = (0.2, 0.8)
    judged = judge(gold, probabilities, codebook)
    split = split_of(gold, codebook, [text] * 40)
    analysis = analyse(split, judged, word_weights)
    part = ModelPart("model <1>", analysis, {"A picture": Figure()})
    return analysis, error_page(
        "file <a>.jsonl", compare({"model <1>": judged}, "x", 100), {"s": ["1"]}, [part]
    )


class Reader(HTMLParser):
    """Collects what a browser would fetch or run, and the marked words."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [str(v) for k, v in attrs if k in ("src", "href", "action", "srcset")]
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_shows_errors_and_needs_nothing_but_itself(codebook: Codebook) -> None:
    hostile = 'He said: "praise" <script>alert(1)</script> & <img src=http://x.example/y>'
    analysis, page = parts(codebook, hostile)
    assert len(analysis.errors) == 1
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.tags.count("script") == 1  # our own filter
    assert all(source.startswith(("data:image/png", "#model-")) for source in reader.sources)
    assert "default-src 'none'" in page
    for shown in (
        "missed praise 0.20",
        "false blame 0.80",
        "also praise/cue/fired +1.50",
        "A picture",
    ):
        assert shown in page
    assert re.search(r'<mark style="background:rgba\(33,102,172,0.60\)" title="\+[\d.]+">', page)


def test_a_word_in_square_brackets_is_a_word_of_its_sentence(codebook: Codebook) -> None:
    _, page = parts(codebook, "They [the league] praised it [sic] [APPLAUSE]")
    (shown,) = re.findall(r'<p class="sentence">(.*missed praise.*)</p><p class="soft">also', page)
    plain = re.sub("<.*?>", "", shown)
    assert plain.endswith("They [the league] praised it [sic] [APPLAUSE]")


def test_only_the_most_confident_errors_are_explained(codebook: Codebook) -> None:
    gold = np.tile([[1, 0]], (EXPLAINED + 5, 1))
    judged = judge(gold, np.full(gold.shape, 0.2), codebook)
    analysis = analyse(split_of(gold, codebook), judged, word_weights)
    explained = [bool(error.wrong[0].words) for error in analysis.errors]
    assert explained == [True] * EXPLAINED + [False] * 5


def test_suspected_errors_stand_apart(codebook: Codebook) -> None:
    gold, judged = separated(codebook)
    split = split_of(gold, codebook)
    suspects = suspected_labels([judged], multi_label=True)
    analysis = analyse(split, judged, word_weights, suspects)
    assert {error.id for error in analysis.suspected} == {f"r{row}" for row in suspects}
    assert len(analysis.suspected) + len(analysis.certain) == len(analysis.errors)
    assert not {e.id for e in analysis.certain} & {e.id for e in analysis.suspected}
    assert replace(analysis, errors=()).suspected == ()
