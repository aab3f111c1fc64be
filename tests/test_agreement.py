"""Agreement is what published examples say, and answers become a corpus without losing a voice."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, toy_rows, write_rows
from hydra import compose, initialize_config_dir

from stance.codebook import Codebook
from stance.config import LabelConfig, read_config, register_schemas
from stance.corpus.examples import Example, read_split, sentence_key
from stance.errors import UserError
from stance.labelling.additions import additions
from stance.labelling.adjudicating import adjudicate, print_adjudication
from stance.labelling.agreement import MISSING, agree, alpha
from stance.labelling.exporting import export
from stance.labelling.tasks import Task, read_queue, write_queue

X = MISSING


def test_alpha_is_that_of_krippendorffs_example() -> None:
    """Krippendorff (2011), "Computing Krippendorff's alpha-reliability", C: nominal, 0.743."""
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, X, X, X],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, X, 3],
        [X, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, X],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, X],
    ]
    assert alpha(np.array(observers, dtype=np.int8).T) == pytest.approx(0.743, abs=0.0005)


def test_alpha_is_that_of_krippendorffs_binary_example() -> None:
    """The same paper, A: two observers, ten units, binary: 0.095."""
    meg, owen = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert alpha(np.array([meg, owen], dtype=np.int8).T) == pytest.approx(0.095, abs=0.0005)


def two(both: int, only_first: int, only_second: int, neither: int) -> np.ndarray:
    rows = [(1, 1)] * both + [(1, 0)] * only_first + [(0, 1)] * only_second + [(0, 0)] * neither
    return np.array(rows, dtype=np.int8)


def test_cohens_kappa_is_that_of_a_published_example() -> None:
    """Fifty proposals, 20 both, 5 and 10 one of them, 15 neither: kappa 0.4."""
    (pair,) = agree(two(20, 5, 10, 15), ["a", "b"], resamples=100, seed=1).pairs
    assert pair.kappa.value == pytest.approx(0.4)
    assert pair.kappa.low < 0.4 < pair.kappa.high
    assert (pair.both, pair.only_first, pair.only_second, pair.neither) == (20, 5, 10, 15)


def test_cohens_kappa_of_a_yes_man_and_a_naysayer_is_nought() -> None:
    """What they said is what chance gives; scikit-learn says so too."""
    (pair,) = agree(two(0, 9, 0, 0), ["a", "b"], resamples=100, seed=1).pairs
    assert (pair.kappa.value, pair.kappa.low, pair.kappa.high) == (0, 0, 0)


def test_fleiss_kappa_by_hand() -> None:
    """Three raters, rows 111 110 100 000: P = (1 + 1/3 + 1/3 + 1) / 4, Pe = 1/2, kappa 1/3."""
    said = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=np.int8)
    measured = agree(said, ["a", "b", "c"], resamples=100, seed=1)
    assert measured.fleiss.value == pytest.approx(1 / 3)
    assert len(measured.pairs) == 3


def test_intervals_narrow_with_more_sentences_and_hold_the_value() -> None:
    few = agree(two(20, 5, 10, 15), ["a", "b"], resamples=400, seed=1).alpha
    many = agree(two(200, 50, 100, 150), ["a", "b"], resamples=400, seed=1).alpha
    assert few.low < few.value < few.high
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_where_nothing_can_be_said_nothing_is_said() -> None:
    alone = agree(np.array([[1], [0]], dtype=np.int8), ["a"], resamples=100, seed=1)
    assert str(alone.alpha) == str(alone.fleiss) == "-"
    same = agree(two(0, 0, 0, 9), ["a", "b"], resamples=100, seed=1)
    assert str(same.alpha) == str(same.pairs[0].kappa) == "-"


TEXTS = [
    "The mayor praised the plan.",
    "The union blamed the mayor.",
    "A panel met at noon.",
    "The league praised and blamed it.",
]


@pytest.fixture
def config(codebook: Codebook, tmp_path: Path) -> LabelConfig:
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        values = compose("label", overrides=["resamples=100"])
    config = read_config(values, LabelConfig)
    config.codebook = codebook.to_mapping()
    tasks = [Task(f"t{i}", text, document_id=f"d{i // 2}") for i, text in enumerate(TEXTS)]
    write_queue(tmp_path / "queue.jsonl", tasks)
    config.queue = str(tmp_path / "queue.jsonl")
    return config


def answer(folder: Path, who: str, *label_sets: list[str] | None) -> str:
    rows: list[dict[str, Any]] = [
        {"id": f"t{i}", "labels": labels, "annotator": who, "at": f"2026-01-0{i + 1}"}
        for i, labels in enumerate(label_sets)
        if labels is not None
    ]
    return str(write_rows(folder / f"{who}.jsonl", rows))


def test_answers_become_a_new_version_with_who_said_what(
    config: LabelConfig, codebook: Codebook, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_rows(tmp_path / "v1.jsonl", toy_rows(codebook, 0, 8))
    before = base.read_bytes()
    files = [
        answer(tmp_path, "anna", ["praise"], ["blame"], [], ["praise", "blame"]),
        answer(tmp_path, "ben", ["praise"], ["blame"], ["praise"], ["praise"]),
        answer(tmp_path, "cem", ["praise"], [], [], ["praise", "blame"]),
    ]
    config.answers, config.base = ",".join(files), str(base)
    config.output = str(tmp_path / "v2.jsonl")
    found = adjudicate(config)
    assert base.read_bytes() == before
    version = read_split(tmp_path / "v2.jsonl", "v2", codebook)
    assert [e.labels for e in version.examples[8:]] == [
        ("praise",),
        ("blame",),
        (),
        ("praise", "blame"),
    ]
    assert version.examples[11].metadata["annotators"] == {
        "anna": ["praise", "blame"],
        "ben": ["praise"],
        "cem": ["praise", "blame"],
    }
    assert version.examples[11].group == "d1"
    record = json.loads((tmp_path / "v2.record.json").read_text())
    assert record["digest"] == version.digest
    assert record["annotators"] == {"anna": 4, "ben": 4, "cem": 4}
    assert record["agreement"]["praise"]["alpha"][0] == pytest.approx(
        alpha(np.array([[1, 1, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=np.int8)), abs=1e-4
    )
    disputes = [json.loads(line) for line in (tmp_path / "v2.disputes.jsonl").open()]
    assert [(d["id"], d["label"], d["rules"], d["decided"]) for d in disputes] == [
        ("t1", "blame", ["1"], True),
        ("t2", "praise", ["no cue"], False),
        ("t3", "blame", ["1"], True),
    ]
    print_adjudication(found)
    shown = capsys.readouterr().out
    assert "disputes: 2 about blame, rule 1" in shown
    with pytest.raises(UserError, match="not overwritten"):
        adjudicate(config)


def test_a_tie_stays_open_and_out_of_the_corpus(config: LabelConfig, tmp_path: Path) -> None:
    files = [
        answer(tmp_path, "anna", ["praise"], ["blame"], None, None),
        answer(tmp_path, "ben", ["praise"], [], [], None),
    ]
    config.answers = ",".join(files)
    found = adjudicate(config)
    assert [example.id for example in found.examples] == ["t0"]
    assert [(d.task.id, d.decided) for d in found.disputes] == [("t1", None)]


def test_a_label_set_that_no_voice_gave_stays_open(
    config: LabelConfig, stance_codebook: Codebook, tmp_path: Path
) -> None:
    """Two of three say no to each of three labels, and nobody says no to all."""
    config.codebook = stance_codebook.to_mapping()
    three = [
        answer(tmp_path, "anna", ["threat"], ["threat"]),
        answer(tmp_path, "ben", ["condemnation"], ["condemnation"]),
        answer(tmp_path, "cem", ["retaliation"], []),
    ]
    config.answers = ",".join(three)
    found = adjudicate(config)
    assert [(e.id, e.labels) for e in found.examples] == [("t1", ())]
    assert [task.id for task in found.open] == ["t0"]
    assert [d.decided for d in found.disputes] == [None, None, None, False, False]
    config.answers = ",".join([*three, answer(tmp_path, "dan", [])])
    assert [(e.id, e.labels) for e in adjudicate(config).examples] == [("t0", ()), ("t1", ())]


def test_what_one_of_two_has_answered_waits_for_the_other(
    config: LabelConfig, codebook: Codebook, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        answer(tmp_path, "anna", ["praise"], ["blame"], [], ["praise"]),
        answer(tmp_path, "ben", ["praise"], ["praise"], None, ["praise"]),
    ]
    config.answers, config.output = ",".join(files), str(tmp_path / "v1.jsonl")
    found = adjudicate(config)
    assert [example.id for example in found.examples] == ["t0", "t3"]
    record = json.loads((tmp_path / "v1.record.json").read_text())
    assert (record["added"], record["answered_by_one"], record["open"]) == (2, 1, 2)
    print_adjudication(found)
    assert "answered by one annotator alone: 1 sentences, left open" in capsys.readouterr().out
    queue = tmp_path / "v1.open.jsonl"
    assert [task.id for task in read_queue(queue, codebook)] == ["t1", "t2"]
    third = answer(tmp_path, "cem", None, ["blame"], [])
    config.answers, config.output = ",".join([*files, third]), str(tmp_path / "v2.jsonl")
    settled = adjudicate(config)
    assert len(settled.examples) == 4
    assert settled.adjudicators == ("cem",)


def test_where_every_sentence_has_one_answer_that_answer_is_taken(
    config: LabelConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = answer(tmp_path, "anna", ["praise"], ["blame"])
    second = answer(tmp_path, "ben", None, None, [], ["praise"])
    for files, count in (([first], 2), ([first, second], 4)):
        config.answers = ",".join(files)
        found = adjudicate(config)
        assert (len(found.examples), found.open) == (count, ())
        print_adjudication(found)
        assert f"alone: {count} sentences, taken as they are" in capsys.readouterr().out


def test_an_open_dispute_waits_in_a_queue_for_one_more_voice(
    config: LabelConfig, codebook: Codebook, tmp_path: Path
) -> None:
    files = [
        answer(tmp_path, "anna", ["praise"], ["blame"], []),
        answer(tmp_path, "ben", ["praise"], [], []),
    ]
    config.answers, config.output = ",".join(files), str(tmp_path / "v1.jsonl")
    adjudicate(config)
    (waiting,) = read_queue(tmp_path / "v1.open.jsonl", codebook)
    assert waiting.text == TEXTS[1]
    third = str(
        write_rows(
            tmp_path / "cem.jsonl", [{"id": waiting.id, "labels": ["blame"], "annotator": "cem"}]
        )
    )
    config.answers, config.output = ",".join([*files, third]), str(tmp_path / "v2.jsonl")
    found = adjudicate(config)
    assert [e.labels for e in found.examples] == [("praise",), ("blame",), ()]
    assert not (tmp_path / "v2.open.jsonl").exists()


def test_a_voice_that_settles_disputes_is_no_part_of_the_agreement(
    config: LabelConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_voices = [
        answer(tmp_path, "anna", ["praise"], ["blame"], [], ["praise"]),
        answer(tmp_path, "ben", ["praise"], [], [], ["praise"]),
    ]
    config.answers = ",".join(two_voices)
    of_two = adjudicate(config)
    config.answers = ",".join([*two_voices, answer(tmp_path, "cem", None, ["blame"])])
    of_three = adjudicate(config)
    assert of_three.adjudicators == ("cem",)
    assert of_three.agreement == of_two.agreement
    assert [dispute.decided for dispute in of_three.disputes] == [True]
    print_adjudication(of_three)
    assert "answered what was open, and not part of the agreement: cem" in capsys.readouterr().out


def test_a_base_with_one_id_twice_is_refused(
    config: LabelConfig, codebook: Codebook, tmp_path: Path
) -> None:
    bases = [write_rows(tmp_path / f"v{i}.jsonl", toy_rows(codebook, 0, 4)) for i in (1, 2)]
    config.base = ",".join(map(str, bases))
    config.answers = answer(tmp_path, "anna", ["praise"])
    config.output = str(tmp_path / "v3.jsonl")
    with pytest.raises(UserError, match=r"v2\.jsonl: the id 'r0' stands in .*v1\.jsonl too"):
        adjudicate(config)
    assert not (tmp_path / "v3.jsonl").exists()


def test_dawid_skene_believes_the_better_annotators(
    config: LabelConfig, codebook: Codebook, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    (tmp_path / "queue.jsonl").unlink()
    write_queue(tmp_path / "queue.jsonl", [Task(f"t{i}", f"Sentence {i}.") for i in range(300)])
    truth = random.random(300) < 0.4
    files = []
    for who, accuracy in (("anna", 0.97), ("ben", 0.97), ("x", 0.62), ("y", 0.62), ("z", 0.62)):
        said = np.where(random.random(300) < accuracy, truth, ~truth)
        rows = [
            {"id": f"t{i}", "labels": ["praise"] if yes else [], "annotator": who}
            for i, yes in enumerate(said)
        ]
        files.append(str(write_rows(tmp_path / f"{who}.jsonl", rows)))
    config.answers = ",".join(files)

    def right() -> float:
        examples = adjudicate(config).examples
        return float(np.mean([truth[int(e.id[1:])] == ("praise" in e.labels) for e in examples]))

    majority = right()
    config.adjudication = "dawid_skene"
    assert right() > max(majority + 0.03, 0.95)


def test_sentences_that_the_base_holds_are_not_added_again(
    config: LabelConfig, codebook: Codebook, tmp_path: Path
) -> None:
    row = {"id": "old", "text": TEXTS[0].upper(), "labels": ["blame"], "group": "g"}
    config.base = str(write_rows(tmp_path / "v1.jsonl", [row]))
    config.answers = answer(tmp_path, "anna", ["praise"], ["blame"])
    config.output = str(tmp_path / "v2.jsonl")
    record = adjudicate(config).record or {}
    assert (record["rows"], record["added"], record["in_base_already"]) == (2, 1, 1)
    assert read_split(tmp_path / "v2.jsonl", "v2", codebook).examples[0].labels == ("blame",)


def test_next_weeks_file_of_the_same_name_loses_no_sentence(
    config: LabelConfig, codebook: Codebook, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids are file names and numbers: the same ones come back with other texts."""
    config.answers = answer(tmp_path, "anna", [], [], [], [])
    config.output = str(tmp_path / "v1.jsonl")
    adjudicate(config)
    config.base, config.queue = config.output, str(tmp_path / "next.jsonl")
    texts = {"t0": TEXTS[2], "t1": "A ship sank.", "t8": "It rained.", "t3": "A band played."}
    places = zip(texts.items(), ("d0", "d0", "d0", "d7"), strict=True)
    write_queue(Path(config.queue), [Task(i, text, document_id=d) for (i, text), d in places])
    rows: list[dict[str, Any]] = [{"id": i, "labels": [], "annotator": "ben"} for i in texts]
    config.answers = str(write_rows(tmp_path / "ben.jsonl", rows))
    config.output = str(tmp_path / "v2.jsonl")
    found = adjudicate(config)
    added = read_split(tmp_path / "v2.jsonl", "v2", codebook).examples[4:]
    assert [example.text for example in added] == list(texts.values())[1:]
    first, last = sentence_key("A ship sank.")[:8], sentence_key("A band played.")[:8]
    assert [example.id for example in added] == [f"t1@{first}", "t8", f"t3@{last}"]
    assert [example.group for example in added] == [f"d0@{first}", f"d0@{first}", "d7"]
    print_adjudication(found)
    assert "added to the base: 3 sentences" in capsys.readouterr().out


@pytest.mark.parametrize(("key", "group"), [("K1", "d0"), ("K2-and-more", "d0@K2-and-m")])
def test_a_document_is_one_group_with_the_base_only_if_it_is_the_same(key: str, group: str) -> None:
    """Without an id that comes back, the documents' keys alone tell them apart."""
    base = Example("d0#0", TEXTS[0], (), "d0", {"document_key": "K1"})
    new = Example("d0#5", TEXTS[1], (), "d0", {"document_key": key})
    (added,) = additions([base], [new])
    assert (added.id, added.group) == ("d0#5", group)
    assert additions([base, added], [replace(new, id="d0#6", text=TEXTS[2])])[0].group == group


def test_work_begun_in_one_tool_goes_on_in_another(
    config: LabelConfig, codebook: Codebook, tmp_path: Path
) -> None:
    config.answers = answer(tmp_path, "anna", ["praise"], ["blame"], [])
    config.output, config.format = str(tmp_path / "tasks.json"), "label_studio"
    export(config)
    config.answers, config.output, config.format = config.output, None, "auto"
    found = adjudicate(config)
    assert [e.labels for e in found.examples] == [("praise",), ("blame",), ()]
    assert found.annotators == ("anna",)
