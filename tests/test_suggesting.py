"""Articles become a queue: no copies, suggestions with their evidence, an order that pays."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, WORDS, toy_rows, write_rows
from hydra import compose, initialize_config_dir

from stance.classifiers.rules import RulesClassifier
from stance.codebook import Codebook
from stance.config import LabelConfig, read_config, register_schemas
from stance.corpus.examples import Split
from stance.decision import Calibrator, Decision
from stance.errors import UserError
from stance.labelling.aggregate import MISSING, NO, SILENT, YES, fit_label_model
from stance.labelling.entailment import EntailmentScorer
from stance.labelling.queue import RANDOM, Wishes, choose, rarity, uncertainty
from stance.labelling.report import print_report, report_voters
from stance.labelling.suggesting import make_queue, read_pool
from stance.labelling.tasks import read_queue
from stance.labelling.voters import CueVoters, ScoringVoter, model_voter, suggest
from stance.model import StanceModel, load_model


@pytest.fixture
def config(codebook: Codebook, tmp_path: Path) -> LabelConfig:
    """The shipped settings, with the toy codebook, a small corpus and a folder of articles."""
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        values = compose("label", overrides=["input=''"])
    config = read_config(values, LabelConfig)
    config.codebook = codebook.to_mapping()
    corpus = write_rows(tmp_path / "corpus.jsonl", toy_rows(codebook, 0, 80))
    gold = write_rows(tmp_path / "gold.jsonl", toy_rows(codebook, 500, 80))
    config.data.train, config.data.validation = [str(corpus)], []
    config.data.test = [str(gold)]
    articles = tmp_path / "articles"
    articles.mkdir()
    rows = toy_rows(codebook, 5000, 120)
    numbers = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    ]
    for number, word in enumerate(numbers):
        own = [
            str(row["text"]).replace("report", f"chapter {word}, according to witnesses, of report")
            for row in rows[number * 10 : number * 10 + 10]
        ]
        (articles / f"{word}.txt").write_text(" ".join(own), encoding="utf-8")
    config.input = str(articles)
    config.output = str(tmp_path / "queue.jsonl")
    config.choose.near = 0.95
    return config


def votes_of(accuracies: list[float], rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = (random.random(rows) < 0.3).astype(np.int8)
    columns = [np.where(random.random(rows) < a, truth, 1 - truth) for a in accuracies]
    return truth, np.column_stack(columns).astype(np.int8)


def test_accuracies_are_learnt_without_gold() -> None:
    truth, votes = votes_of([0.95, 0.8, 0.7, 0.85], 4000)
    model = fit_label_model(votes)
    assert model.accuracies() == pytest.approx([0.95, 0.8, 0.7, 0.85], abs=0.03)
    assert model.rate == pytest.approx(0.3, abs=0.03)
    combined = (model.probabilities(votes) >= 0.5) == truth
    majority = (votes.mean(axis=1) >= 0.5) == truth
    assert combined.mean() > max(majority.mean(), 0.95)


def test_a_voter_who_was_not_asked_changes_nothing() -> None:
    _, votes = votes_of([0.95, 0.8, 0.7], 500)
    with_nobody = np.column_stack([votes, np.full(len(votes), MISSING, dtype=np.int8)])
    alone, together = fit_label_model(votes), fit_label_model(with_nobody)
    np.testing.assert_allclose(
        alone.probabilities(votes), together.probabilities(with_nobody), atol=1e-6
    )


def test_a_lone_rule_that_only_says_yes_is_believed_and_its_silence_is_no() -> None:
    votes = np.full((1000, 1), SILENT, dtype=np.int8)
    votes[:100] = YES
    votes[100:120] = NO
    probabilities = fit_label_model(votes).probabilities(votes)
    assert (probabilities[:100] > 0.5).all()
    assert (probabilities[100:] < 0.5).all()
    assert fit_label_model(votes[:0]).probabilities(votes[:0]).shape == (0,)


def test_the_model_of_equal_voters_is_their_majority() -> None:
    _, votes = votes_of([0.85, 0.85, 0.85], 3000)
    predicted = fit_label_model(votes).probabilities(votes) >= 0.5
    assert (predicted == (votes.sum(axis=1) >= 2)).mean() > 0.99


def test_cue_rules_vote_with_name_rule_and_span(codebook: Codebook) -> None:
    text = "The mayor praised the harbour plan."
    voters = CueVoters(codebook)
    ballot = voters.vote([text, "The mayor left."])
    assert ballot.on("praise").tolist() == [YES, SILENT]
    assert ballot.on("blame").tolist() == [SILENT, SILENT]
    ((evidence,), nothing) = voters.evidence([text, "The mayor left."])
    assert nothing == []
    assert (evidence["voter"], evidence["rule"], evidence["vote"]) == (
        "cue:praise/praise",
        1,
        "yes",
    )
    assert text[evidence["start"] : evidence["end"]] == evidence["text"] == "praised"


def test_a_scoring_voter_is_silent_near_its_threshold(codebook: Codebook) -> None:
    scores = np.array([[0.1, 0.5], [0.9, np.nan]])
    voter = ScoringVoter(
        "m", codebook, lambda texts: scores, low=np.full(2, 0.4), high=np.full(2, 0.6)
    )
    assert voter.vote(["a", "b"]).votes.tolist() == [[NO, SILENT], [YES, SILENT]]
    assert [[e["vote"] for e in item] for item in voter.evidence(["a", "b"])] == [
        ["silent"],
        ["yes"],
    ]


def test_a_trained_model_votes(
    rules_model: Path, codebook: Codebook, toy: dict[str, Split]
) -> None:
    voter = model_voter(load_model(rules_model))
    ballot = voter.vote(toy["test"].texts)
    assert ballot.votes.shape == toy["test"].gold.shape
    suggestions = suggest([CueVoters(codebook).vote(toy["test"].texts), ballot], codebook)
    found = suggestions.probabilities >= 0.5
    assert (found <= toy["test"].gold).mean() > 0.95  # the rules know half of the verbs


def test_a_single_label_model_votes_by_its_own_margin(
    single_codebook: Codebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = np.array([[0.45, 0.30, 0.25], [0.40, 0.35, 0.25], [0.05, 0.55, 0.40]])
    decision = Decision(single_codebook.names, False, (Calibrator(),) * 3, (), band=0.1)
    model = StanceModel("m", RulesClassifier(single_codebook), decision, single_codebook)
    monkeypatch.setattr(model, "probabilities", lambda texts: scores)
    votes = model_voter(model).vote(["a", "b", "c"]).votes
    assert votes.tolist() == [[YES, NO, NO], [SILENT, SILENT, NO], [NO, YES, NO]]
    doubted = model.predict(["a", "b", "c"]).uncertain.tolist()
    assert (votes == SILENT).any(axis=1).tolist() == doubted == [False, True, False]


def test_a_single_label_codebook_gets_one_suggestion(single_codebook: Codebook) -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    half = np.full(3, 0.5)
    ballot = ScoringVoter("m", single_codebook, lambda texts: scores, low=half, high=half)
    suggestions = suggest([ballot.vote(["a", "b"])], single_codebook)
    assert suggestions.label_sets == [("praise",), ("plain",)]
    assert suggestions.probabilities.sum(axis=1) == pytest.approx(1)


def test_uncertainty_and_rarity_by_hand() -> None:
    thresholds = np.array([0.5, 0.8])
    found = uncertainty(np.array([[0.5, 0.0], [1.0, 0.4], [0.0, 1.0]]), thresholds)
    assert found == pytest.approx([1.0, 0.5, 0.0])
    rare = rarity(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    assert rare == pytest.approx([np.log(4 / 3) / np.log(4)] * 3 + [1.0])


def chosen(rows: int, **wishes: float) -> list[tuple[int, str]]:
    random = np.random.default_rng(3)
    probabilities = random.random((rows, 2))
    texts = [f"sentence number {i} of kind {i % 7}" for i in range(rows)]
    picks = choose(
        texts,
        probabilities,
        np.full(2, 0.5),
        random.random(rows),
        Wishes(**wishes),  # type: ignore[arg-type]
    )
    return [(pick.position, pick.reason) for pick in picks]


def test_a_queue_holds_the_budget_once_each_with_its_random_share_spread_evenly() -> None:
    picks = chosen(500, budget=100, random_share=0.2)
    assert len({position for position, _ in picks}) == len(picks) == 100
    reasons = Counter(reason for _, reason in picks)
    assert reasons[RANDOM] == 20
    assert Counter(reason for _, reason in picks[:50])[RANDOM] == 10
    assert chosen(500, budget=100, random_share=0.2) == picks
    assert len(chosen(30, budget=100)) == 30
    assert {reason for _, reason in chosen(200, budget=40, random_share=1.0)} == {RANDOM}
    assert chosen(0, budget=5) == []


def test_the_random_share_is_drawn_whatever_the_scores_are() -> None:
    positions = [
        position
        for seed in range(60)
        for position, reason in chosen(100, budget=20, random_share=0.5, diversity=False, seed=seed)
        if reason == RANDOM
    ]
    counts = np.bincount(positions, minlength=100)
    assert counts.sum() == 600
    assert counts.max() < 20  # six each is expected
    assert (counts > 0).mean() > 0.97


def test_like_sentences_are_not_all_asked() -> None:
    places, days = ["Leeds", "York", "Hull", "Ripon"], ["Monday", "Tuesday", "Friday"]
    councils = [f"The council of {place} met on {day} at noon." for place in places for day in days]
    boats = [f"Two boats from {place} sank off {place} in a gale." for place in places]
    probabilities = np.array([[0.5]] * len(councils) + [[0.4]] * len(boats))

    def asked(*, diversity: bool) -> set[int]:
        wishes = Wishes(budget=5, random_share=0, rarity=0, diversity=diversity)
        scores = np.full(1, 0.5), np.zeros(len(probabilities))
        return {c.position for c in choose([*councils, *boats], probabilities, *scores, wishes)}

    assert asked(diversity=False) <= set(range(len(councils)))
    assert asked(diversity=True) - set(range(len(councils)))


def test_articles_become_a_queue_with_context_offsets_and_evidence(
    config: LabelConfig, codebook: Codebook
) -> None:
    config.choose.budget = 30
    queued = make_queue(config)
    tasks = read_queue(Path(config.output or ""), codebook)
    assert tasks == [task for task in queued.tasks]
    assert len(tasks) == 30
    for task in tasks:
        article = (Path(config.input or "") / task.document_id).read_text(encoding="utf-8")
        assert article[task.start : task.end] == task.text
        assert task.before in article
        assert f"{task.before} {task.text}".strip() in article
        for item in task.evidence:
            assert task.text[item["start"] : item["end"]] == item["text"]
    praised = [task for task in tasks if WORDS["praise"][0] in task.text]
    assert praised
    assert all("praise" in task.suggested for task in praised)
    with pytest.raises(UserError, match="stands there already"):
        make_queue(config)


def test_copies_of_each_other_and_of_the_corpus_are_not_asked(
    config: LabelConfig, codebook: Codebook
) -> None:
    known = str(toy_rows(codebook, 0, 80)[7]["text"])
    folder = Path(config.input or "")
    first = (folder / "one.txt").read_text(encoding="utf-8")
    (folder / "zz-copy.txt").write_text(f"{known} {first}", encoding="utf-8")
    pool = read_pool(config, codebook)
    assert known not in pool.kept_texts
    assert len(set(pool.kept_texts)) == len(pool.kept_texts) == 120
    assert pool.duplicates == 11
    config.choose.near = 0.5
    assert read_pool(config, codebook).near_duplicates > 50


def test_a_table_of_articles_may_be_quoted(
    config: LabelConfig, codebook: Codebook, tmp_path: Path
) -> None:
    (tmp_path / "a.tsv").write_text('"text"\n"The mayor said ""no"" to it."\n')
    config.input = str(tmp_path / "a.tsv")
    with pytest.raises(UserError, match="set tsv_quotes=true"):
        read_pool(config, codebook)
    config.tsv_quotes = True
    assert read_pool(config, codebook).texts == ['The mayor said "no" to it.']


def test_a_record_that_cannot_be_read_is_kept_with_its_reason(
    config: LabelConfig, tmp_path: Path
) -> None:
    table = tmp_path / "articles.jsonl"
    lines = [
        '{"id": "a", "text": "The mayor left the town hall."}',
        "{broken",
        '{"id": "a", "text": "B."}',
    ]
    table.write_text("\n".join(lines), encoding="utf-8")
    config.input, config.id_column = str(table), "id"
    make_queue(config)
    rejects = [json.loads(line) for line in (tmp_path / "queue.jsonl.rejects.jsonl").open()]
    assert [(reject["row"], reject["id"]) for reject in rejects] == [(2, None), (None, "a")]


def test_the_report_counts_by_hand(config: LabelConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of the praising verbs are cues, and half of the sentences praise."""
    report = report_voters(config)
    fare = next(fare for fare in report.fares if fare.voter == "cue:praise/praise")
    assert fare.coverage == pytest.approx(0.25, abs=0.02)
    assert (fare.overlap, fare.conflict, fare.accuracy) == (0.0, 0.0, 1.0)
    assert report.alphas.keys() == {"praise", "blame", "all"}
    assert 0.3 < report.alphas["all"] < 0.8
    print_report(report)
    assert "cue:praise/praise" in capsys.readouterr().out


def test_the_gold_file_does_not_move_what_is_expected_of_the_articles(
    config: LabelConfig, codebook: Codebook, tmp_path: Path
) -> None:
    with_gold = report_voters(config)
    config.data.test = []
    alone = report_voters(config)
    assert alone.alphas == {}
    assert with_gold.rates == alone.rates
    rare = [row for row in toy_rows(codebook, 500, 400) if not row["labels"]]
    config.data.test = [str(write_rows(tmp_path / "rare.jsonl", rare))]
    assert report_voters(config).rates == alone.rates


GOLD: list[dict[str, object]] = [
    {"id": "a", "text": "The minister condemned the raid.", "labels": ["condemnation"]},
    {"id": "b", "text": "The panel met at noon.", "labels": []},
]


@pytest.fixture(scope="module")
def tiny_entailment(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random entailment model with three classes."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("entailment")
    names = {0: "ENTAILMENT", 1: "neutral", 2: "contradiction"}
    AutoModelForSequenceClassification.from_pretrained(
        tiny_encoder, num_labels=3, id2label=names, label2id={v: k for k, v in names.items()}
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(folder)
    return folder


def test_an_entailment_model_scores_hypotheses_whatever_the_batch(
    tiny_entailment: Path, codebook: Codebook, toy: dict[str, Split]
) -> None:
    texts = toy["test"].texts[:9]
    scorer = EntailmentScorer(codebook, checkpoint=str(tiny_entailment), batch_size=4)
    found = scorer(texts)
    assert found.shape == (9, 2)
    assert ((found > 0) & (found < 1)).all()
    alone = np.vstack([scorer([text]) for text in texts])
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_an_entailment_model_joins_the_voters(config: LabelConfig, tiny_entailment: Path) -> None:
    config.entailment.checkpoint = str(tiny_entailment)
    config.entailment.accept, config.entailment.reject = 0.5, 0.5
    voters = {fare.voter for fare in report_voters(config).fares}
    assert "entailment" in voters


def test_an_entailment_model_is_found_by_hub_id_and_commit(
    tiny_entailment: Path, tmp_path: Path
) -> None:
    """No hub is asked: the commit lies in the cache of the hub's client, as after a download."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshots = tmp_path / "home/hub/models--some--nli/snapshots"
    snapshots.mkdir(parents=True)
    shutil.copytree(tiny_entailment, snapshots / commit)
    options = ["entailment.checkpoint=some/nli", f"entailment.revision={commit}"]
    command = [sys.executable, str(ROOT / "label.py"), "report=true", *options]
    command += [f"data.test=[{write_rows(tmp_path / 'g.jsonl', GOLD)}]"]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("│ entailment ") == 4
    command[4] = f"entailment.revision={commit[::-1]}"
    wrong = run()
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: entailment.checkpoint: 'some/nli'")
    assert len(wrong.stderr.splitlines()) == 1


def test_an_unusable_entailment_model_is_refused(
    tiny_encoder: Path, codebook: Codebook, single_codebook: Codebook
) -> None:
    with pytest.raises(UserError, match=r"entailment\.revision"):
        EntailmentScorer(codebook, checkpoint="some/model")
    with pytest.raises(UserError, match="no class entailment"):
        EntailmentScorer(codebook, checkpoint=str(tiny_encoder))
    with pytest.raises(UserError, match="no hypotheses"):
        EntailmentScorer(single_codebook, checkpoint=str(tiny_encoder))
