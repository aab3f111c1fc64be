"""A labelled file is dealt into splits that share nothing, in the shares asked for."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from stance.codebook import Codebook
from stance.corpus.examples import Example, Split, read_corpus
from stance.corpus.splits import deal

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def documents(codebook: Codebook, seed: int, count: int = 120) -> Split:
    """Return documents of 1 to 20 sentences, a rare label in one of eight of them."""
    generator = np.random.default_rng(seed)
    examples = []
    for document in range(count):
        rare = document % 8 == 0
        for number in range(int(generator.integers(1, 21))):
            labels = ("praise",) if rare and number % 2 == 0 else ("blame",) * (number % 3 == 0)
            words = " ".join(f"w{generator.integers(10**6)}" for _ in range(8))
            examples.append(Example(f"{document}-{number}", words, labels, f"d{document}"))
    return Split("mine", tuple(examples), codebook)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shares_and_labels_are_kept_though_documents_stay_whole(
    seed: int, codebook: Codebook
) -> None:
    whole = documents(codebook, seed)
    splits = deal(whole, SHARES, seed=seed)
    assert sorted(e.id for s in splits.values() for e in s.examples) == sorted(
        e.id for e in whole.examples
    )
    for name, share in SHARES.items():
        assert len(splits[name]) == pytest.approx(share * len(whole), rel=0.03)
        expected = share * whole.gold.sum(axis=0)
        assert splits[name].gold.sum(axis=0) == pytest.approx(expected, rel=0.1, abs=2)
        others = {g for n, s in splits.items() if n != name for g in s.groups}
        assert not others & set(splits[name].groups)
    order = {e.id: row for row, e in enumerate(whole.examples)}
    assert [order[e.id] for e in splits["train"].examples] == sorted(
        order[e.id] for e in splits["train"].examples
    )
    assert deal(whole, SHARES, seed=seed)["test"].examples == splits["test"].examples
    assert deal(whole, SHARES, seed=seed + 1)["test"].examples != splits["test"].examples


def test_copies_stay_together_across_documents_and_over_a_chain(codebook: Codebook) -> None:
    chain = [" ".join(f"v{word}" for word in range(n, n + 24)) for n in range(4)]
    texts = [*chain, "No.", "no!", *(f"q{n} r{n} s{n} t{n}" for n in range(40))]
    examples = [Example(str(n), text, (), f"d{n}") for n, text in enumerate(texts)]
    for seed in range(5):
        splits = deal(Split("mine", tuple(examples), codebook), SHARES, near=0.7, seed=seed)
        where = {e.id: name for name, split in splits.items() for e in split.examples}
        assert len({where[str(n)] for n in range(4)}) == 1
        assert where["4"] == where["5"]


def write_sheet(path: Path, split: Split) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream, delimiter=";")
        writer.writerow(["document", "sentence", *split.codebook.names, "year"])
        for example, ticks in zip(split.examples, split.gold.tolist(), strict=True):
            writer.writerow([example.group, example.text, *ticks, 1999])


def label(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "label.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_spreadsheet_becomes_files_that_training_takes(
    tmp_path: Path, stance_codebook: Codebook
) -> None:
    first, *_ = stance_codebook.names
    rows = [
        Example(f"r{n}", f"w{n} x{n} y{n} z{n}", (first,) if n % 2 else (), f"d{n // 4}")
        for n in range(80)
    ]
    sheet = tmp_path / "gold.csv"
    write_sheet(sheet, Split("gold", tuple(rows), stance_codebook))
    named = [f"split={sheet}", f"output={tmp_path}/gold", "data.text_column=sentence"]
    named += ["data.label_column=", "data.group_column=document"]
    done = label(*named)
    assert done.returncode == 0, done.stderr
    files = {name: [tmp_path / f"gold/{name}.jsonl"] for name in SHARES}
    corpus = read_corpus(files, stance_codebook)
    assert [len(split) for split in corpus.values()] == [56, 12, 12]
    assert [int(split.gold.sum()) for split in corpus.values()] == [28, 6, 6]
    assert corpus["test"].examples[0].metadata == {"year": "1999"}
    assert f"data.validation=[{files['validation'][0]}]" in done.stdout
    again = label(*named)
    assert again.returncode == 2
    assert again.stderr.strip().endswith("train.jsonl: stands there already and is not overwritten")
    for wrong, message in (
        (["validation_share=0.6", "test_share=0.4"], "leave nothing to train on"),
        (["data.group_column=year"], "1 groups are too few: none is left for 'validation'"),
        (["data.label_column=label"], "no column 'label'; the columns are document, sentence"),
    ):
        refused = label(*named, f"output={tmp_path}/other", *wrong)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert message in refused.stderr
    assert not (tmp_path / "other").exists()
    assert label(*named, f"output={tmp_path}/two", "test_share=0").returncode == 0
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [
        "train.jsonl",
        "validation.jsonl",
    ]
