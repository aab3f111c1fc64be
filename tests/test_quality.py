"""A corpus check finds what must be mended, and the corpus that ships needs no mending."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, toy_rows, write_rows
from hydra import compose, initialize_config_dir

from stance.codebook import Codebook
from stance.config import LabelConfig, read_config, register_schemas
from stance.corpus import quality
from stance.corpus.near import copies, near_pairs, similarity
from stance.corpus.quality import Corpus, cue_records, find_copies, find_label_errors, read_located
from stance.labelling.checking import check, out_of_fold, print_quality, splits_of

Row = dict[str, Any]


def located(codebook: Codebook, folder: Path, **splits: list[Row]) -> Corpus:
    files = {name: [write_rows(folder / f"{name}.jsonl", rows)] for name, rows in splits.items()}
    return read_located(files, codebook)


def row(number: int, text: str, group: str, labels: list[str] | None = None) -> Row:
    return {"id": f"n{number}", "text": text, "labels": labels or [], "group": group}


LONG = "The harbour master said on Monday that the old bridge would stay shut until the spring."


def test_nothing_in_the_shipped_corpus_must_be_fixed(stance_codebook: Codebook) -> None:
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = read_config(compose("label", overrides=["check=true"]), LabelConfig)
    files = {
        name: [ROOT / path for path in paths] for name, paths in splits_of(config.data).items()
    }
    corpus = read_located(files, stance_codebook)
    findings = [*corpus.findings, *find_copies(corpus, config.choose.near)]
    assert [finding for finding in findings if finding.must_fix] == []


def test_similarity_by_hand() -> None:
    """Five pairs with both ends and four, of which three are shared: 3 / 6."""
    assert similarity("The minister left again.", "the MINISTER, left") == 3 / 6
    assert similarity("Alike", "alike!") == 1.0


def test_near_pairs_are_those_that_all_against_all_finds() -> None:
    generator = random.Random(0)
    words = [f"w{number}" for number in range(400)]
    texts = [" ".join(generator.choices(words, k=generator.randint(4, 25))) for _ in range(300)]
    for text in texts[:150]:
        changed = text.split()
        changed[generator.randrange(len(changed))] = generator.choice(words)
        texts.append(" ".join(changed))
    expected = {
        (first, second)
        for second in range(len(texts))
        for first in range(second)
        if similarity(texts[first], texts[second]) >= 0.7
    }
    found = {(pair.first, pair.second) for pair in near_pairs(texts, 0.7)}
    assert len(expected) > 100
    assert found <= expected
    assert len(found) >= 0.98 * len(expected)


def test_of_copies_the_first_stays_and_a_chain_is_not_followed() -> None:
    base = LONG.split()
    second, third = [*base[:-1], "winter."], ["A", *base[1:-1], "winter."]
    texts = [" ".join(base), " ".join(second), " ".join(third), "Quite another sentence."]
    assert copies(texts, 0.75) == {1: 0}
    assert copies([], 0.8) == {}


def test_boilerplate_by_the_thousand_is_seen_as_copies() -> None:
    texts = [f"{LONG} The index closed at {number} points today." for number in range(2000)]
    assert len(copies(texts)) > 1900


def test_copies_across_splits_must_be_fixed_and_those_within_a_group_need_not(
    codebook: Codebook, tmp_path: Path
) -> None:
    changed = LONG.replace("spring", "summer")
    corpus = located(
        codebook,
        tmp_path,
        train=[row(1, LONG, "a"), row(2, LONG.replace("Monday", "Friday"), "a")],
        test=[row(3, changed, "b"), row(4, LONG.upper(), "c")],
    )
    findings = find_copies(corpus)
    assert {(f.kind, f.places[1].rsplit("/", 1)[1]) for f in findings if f.must_fix} == {
        (quality.NEAR_DUPLICATE, "test.jsonl:1"),
        (quality.DUPLICATE, "test.jsonl:2"),
    }
    within = located(codebook, tmp_path, train=[row(1, LONG, "a"), row(2, changed, "a")])
    assert find_copies(within) == []
    groups = located(codebook, tmp_path, train=[row(1, LONG, "a"), row(2, changed, "b")])
    (finding,) = find_copies(groups)
    assert finding.kind == quality.NEAR_DUPLICATE
    assert not finding.must_fix


def test_every_bad_line_is_named_and_the_rest_is_still_read(
    codebook: Codebook, tmp_path: Path
) -> None:
    path = tmp_path / "mine.jsonl"
    lines = [
        json.dumps(row(1, "One.", "a")),
        "{broken",
        json.dumps(row(2, "Two.", "b", ["scorn"])),
        json.dumps(row(1, "Three.", "c")),
        json.dumps(row(4, "Four.", "d", ["praise"])),
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    corpus = read_located({"mine": [path]}, codebook)
    assert [located.example.id for located in corpus.examples] == ["n1", "n4"]
    assert [f.detail.split(":")[1] for f in corpus.findings] == ["2", "3", "4"]
    assert all(f.must_fix and f.kind == quality.BAD_LINE for f in corpus.findings)


def test_a_group_or_an_id_in_two_splits_must_be_fixed(codebook: Codebook, tmp_path: Path) -> None:
    corpus = located(
        codebook, tmp_path, train=[row(1, "One.", "a")], test=[row(1, "Quite another.", "a")]
    )
    assert [f.kind for f in corpus.findings] == [quality.ID_TWICE, quality.GROUP_PARTED]


def test_labels_are_held_against_the_cue_rules(codebook: Codebook, tmp_path: Path) -> None:
    corpus = located(
        codebook,
        tmp_path,
        train=[
            row(1, "The union praised the plan.", "a", ["praise"]),
            row(2, "The union praised the bridge.", "b"),
            row(3, "The union left.", "c"),
        ],
    )
    records, findings = cue_records(corpus)
    assert [(r.cue, r.fired, r.right) for r in records] == [
        ("praise/praise", 2, 1),
        ("blame/blame", 0, 0),
    ]
    (finding,) = findings
    assert finding.places[0].endswith("train.jsonl:2")
    assert not finding.must_fix


@pytest.mark.parametrize("kind", ["codebook", "single_codebook"])
def test_planted_label_errors_are_suspected(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    codebook = request.getfixturevalue(kind)
    rows = toy_rows(codebook, 0, 240)
    for planted in (8, 40, 121):  # praise, praise, blame
        rows[planted]["labels"] = ["blame"] if planted < 100 else ["praise"]
    corpus = located(codebook, tmp_path, train=rows)
    findings = find_label_errors(corpus, out_of_fold(corpus, 5, 1))
    places = {finding.places[0].rsplit(":", 1)[1] for finding in findings[:8]}
    assert {"9", "41", "122"} <= places
    assert len(findings) < 20


def test_out_of_fold_probabilities_never_saw_the_group(codebook: Codebook, tmp_path: Path) -> None:
    """A group whose labels are all flipped is predicted as the others are labelled."""
    rows = toy_rows(codebook, 0, 160)
    for flipped in rows[:4]:
        flipped["labels"] = [n for n in codebook.names if n not in flipped["labels"]]
    corpus = located(codebook, tmp_path, train=rows)
    predicted = out_of_fold(corpus, 4, 1) >= 0.5
    assert (predicted[:4] != corpus.gold[:4]).mean() > 0.7
    assert (predicted[4:] == corpus.gold[4:]).mean() > 0.95


def test_the_profile_counts_by_hand(codebook: Codebook, tmp_path: Path) -> None:
    corpus = located(codebook, tmp_path, train=toy_rows(codebook, 0, 8))
    profile = quality.profile(corpus)["train"]
    assert (profile.sentences, profile.groups) == (8, 2)
    assert profile.labels == {"praise": 4, "blame": 4}
    assert profile.label_sets == {"praise": 2, "blame": 2, "none": 2, "praise, blame": 2}
    words = [len(str(r["text"]).split()) for r in toy_rows(codebook, 0, 8)]
    assert profile.words[50] == np.median(words)


Label = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def label(tmp_path: Path) -> Label:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "label.py"), *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )

    return run


def test_the_script_ends_with_3_when_something_must_be_fixed(label: Label, tmp_path: Path) -> None:
    write_rows(tmp_path / "a b.jsonl", [row(1, LONG, "a")])
    write_rows(tmp_path / "c.jsonl", [row(2, LONG, "b")])
    alone = label("check=a b.jsonl")
    assert alone.returncode == 0, alone.stderr
    assert "nothing must be fixed" in alone.stdout
    both = label("check=a b.jsonl,c.jsonl", "output=found.jsonl")
    assert both.returncode == 3
    assert "must be fixed: duplicate: 1" in both.stdout
    (found,) = [json.loads(line) for line in (tmp_path / "found.jsonl").open()]
    assert found["places"] == ["a b.jsonl:1", "c.jsonl:1"]
    corpus = (tmp_path / "c.jsonl").read_bytes()
    over = label("check=c.jsonl", "output=c.jsonl")
    assert over.returncode == 2
    assert "stands there already" in over.stderr
    assert (tmp_path / "c.jsonl").read_bytes() == corpus
    missing = label("check=nowhere.jsonl")
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: nowhere.jsonl: cannot read")


def test_a_check_runs_as_a_function_too(
    codebook: Codebook, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(tmp_path / "toy.jsonl", toy_rows(codebook, 0, 80))
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = read_config(compose("label", overrides=[f"check={path}"]), LabelConfig)
    config.codebook = codebook.to_mapping()
    found = check(config)
    assert found.must_fix == []
    print_quality(found)
    assert re.search(r"none.* words .*\n.*\n.* 20 \(25%\) ", capsys.readouterr().out)


def test_files_of_one_name_are_checked_against_each_other(
    codebook: Codebook, tmp_path: Path
) -> None:
    rows = toy_rows(codebook, 0, 8)
    (tmp_path / "new").mkdir()
    paths = [write_rows(folder / "part.jsonl", rows) for folder in (tmp_path, tmp_path / "new")]
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = [f"check='{paths[0]},{paths[1]}'"]
        config = read_config(compose("label", overrides=overrides), LabelConfig)
    config.codebook = codebook.to_mapping()
    found = check(config)
    assert set(found.profiles) == {str(path) for path in paths}
    assert found.must_fix
