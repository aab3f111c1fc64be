import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stance.text.sentences import split_sentences

TABLE = Path(__file__).parent / "data" / "sentence_cases.jsonl"
CASES: list[dict[str, Any]] = [
    json.loads(line) for line in TABLE.read_text(encoding="utf-8").split("\n") if line
]
MEGABYTE = 1_000_000

MARKS = '.?!…"“”‘’()[]-—;:,•<>&\n\r\t \u2028\u0085\u00a0\u200baAzZ09éШ中'
WORDS = "U.S.|Gen. |The |\n\n|...|<p>|</p>|&nbsp;|1. |- |p.m. |say. | said"

news_like = st.lists(st.sampled_from([*WORDS.split("|"), *MARKS])).map("".join)

REPEATED = (
    'a|word |.|. |A. |U.S. And B |; 2. a |(a. B |"A?" |<p |<p>| |\n|ab\n|a.\n|&nbsp;|…|’|(|- '
    '|• |a... |1. |."|[1].'
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}: {case['text'][:40]!r}")
def test_awkward_texts_are_split_as_the_table_says(case: dict[str, Any]) -> None:
    found = [sentence.text for sentence in split_sentences(case["text"])]
    if case.get("known_error"):
        assert found != case["sentences"], "repaired: take the mark known_error off"
    else:
        assert found == case["sentences"]


def test_known_errors_stay_rare() -> None:
    assert sum(case.get("known_error", False) for case in CASES) <= 0.05 * len(CASES)


def test_the_table_is_large_and_names_each_text_once() -> None:
    assert len(CASES) >= 190
    assert len({case["text"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    "sentences",
    [
        ["The senator told RT.", "The Kremlin condemned the raid."],
        ["Tesla was fined by the SEC.", "Shares fell."],
        ["He spoke at 8 p.m. CT.", "Police condemned the march."],
        ["THE MAYOR OF ST. LOUIS RESIGNED.", "HE WAS 61."],
        ["H.E. Mr. Moussa Sy opened the talks.", "They lasted an hour."],
        ["Spc. Ross Hill and Det. Insp. Shaw gave evidence.", "Retd. Col. Khan agreed."],
    ],
)
def test_sentences_written_in_one_line_come_apart_again(sentences: list[str]) -> None:
    assert [sentence.text for sentence in split_sentences(" ".join(sentences))] == sentences


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\u200b\ufeff", "...", '"', "<p></p>", "&nbsp;"])
def test_text_without_letters_or_digits_has_no_sentences(text: str) -> None:
    assert split_sentences(text) == []


@given(news_like | st.text())
@example("\ufeff<p>One.</p>\x85Two\u2028Three")
def test_offsets_point_at_the_sentences_in_order(text: str) -> None:
    end = 0
    for sentence in split_sentences(text):
        assert text[sentence.start : sentence.end] == sentence.text
        assert sentence.text == sentence.text.strip() != ""
        assert sentence.start >= end
        end = sentence.end


@given(news_like.filter(lambda text: "<" not in text and "&" not in text) | st.text("aB1. \n"))
def test_no_letter_or_digit_is_lost(text: str) -> None:
    kept = "".join(sentence.text for sentence in split_sentences(text))
    assert [c for c in kept if c.isalnum()] == [c for c in text if c.isalnum()]


@given(st.lists(st.sampled_from([case["text"] for case in CASES]), max_size=3))
def test_paragraphs_are_split_independently(texts: list[str]) -> None:
    joined = split_sentences("\n\n".join(texts))
    alone = [sentence.text for text in texts for sentence in split_sentences(text)]
    assert [sentence.text for sentence in joined] == alone


@pytest.mark.parametrize("unit", REPEATED.split("|"))
def test_a_megabyte_of_anything_is_split_without_losing_a_letter(unit: str) -> None:
    text = "Begin " + unit * (MEGABYTE // len(unit)) + " end"
    sentences = split_sentences(text)
    assert sentences[0].text.startswith("Begin")
    assert sentences[-1].text.endswith("end")


@pytest.mark.parametrize("prefix", ['"', "(", " ", ".", "\u200b", "<b>", "-"])
def test_a_long_opening_does_not_slow_what_follows(prefix: str) -> None:
    text = prefix * (MEGABYTE // 2 // len(prefix)) + "A. " * (MEGABYTE // 6) + "end"
    assert split_sentences(text)[-1].text.endswith("end")


def test_a_line_break_inside_a_sentence_stays_in_its_text() -> None:
    text = (
        "The mediator said that both of the delegations had accepted the\n"
        "text and that they would sign it."
    )
    assert [sentence.text for sentence in split_sentences(text)] == [text]


def test_every_ascii_mark_alone_between_words_is_harmless() -> None:
    for mark in string.punctuation:
        (first, *rest) = split_sentences(f"The talks {mark} of Geneva failed.")
        assert first.text.startswith("The talks")
        assert not rest or rest[-1].text.endswith("failed.")
