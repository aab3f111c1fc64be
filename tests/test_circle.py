"""The circle closes: articles, queue, tool, answers, agreement, corpus, training, better queue."""

import json
from pathlib import Path

import pytest
from conftest import ROOT, write_rows
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from stance.codebook import Codebook
from stance.config import LabelConfig, PredictConfig, TrainConfig, read_config, register_schemas
from stance.labelling.adjudicating import adjudicate
from stance.labelling.answers import Answer
from stance.labelling.checking import check
from stance.labelling.exporting import export
from stance.labelling.formats import write_tasks
from stance.labelling.suggesting import make_queue
from stance.labelling.tasks import read_queue
from stance.prediction.batch import predict
from stance.training import train

VERBS = {
    "condemnation": "condemned the raid on",
    "threat": "threatened to bomb",
    "mediation": "offered to mediate between the army and the rebels of",
    "retaliation": "expelled two envoys in retaliation for the raid on",
    "": "opened a library in",
}
PLACES = ["Arda", "Belin", "Corva", "Dusk", "Elmet", "Farn", "Gor", "Hask", "Ister", "Jarl"]
ACTORS = ["The foreign ministry", "A spokesman", "The president", "The council"]


def composed(script: str, *overrides: str) -> DictConfig:
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(script, overrides=list(overrides))


def label(*overrides: str) -> LabelConfig:
    own = ["data.train=[]", "data.validation=[]", "data.test=[]", "choose.near=1.0"]
    return read_config(composed("label", *overrides, *own, "resamples=100"), LabelConfig)


def test_the_whole_circle_from_articles_to_predictions(
    stance_codebook: Codebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("articles").mkdir()
    for number, place in enumerate(PLACES):
        lines = [
            f"{ACTORS[(number + i) % 4]} {verb} {place} on day {number + i}."
            for i, verb in enumerate(VERBS.values())
        ]
        Path("articles", f"{place}.txt").write_text("\n\n".join(lines))

    make_queue(label("input=articles", "output=queue.jsonl"))
    export(label("queue=queue.jsonl", "output=tasks.json", "format=label_studio"))
    tasks = read_queue(Path("queue.jsonl"), stance_codebook)
    assert len(tasks) == len(json.loads(Path("tasks.json").read_text())) == 50

    answers = [
        Answer(task.id, tuple(n for n, verb in VERBS.items() if n and verb in task.text), who)
        for task in tasks
        for who in ("anna@example.org", "ben@example.org")
    ]
    write_tasks(Path("export.json"), tasks, answers, "label_studio", stance_codebook)
    found = adjudicate(label("queue=queue.jsonl", "answers=export.json", "output=mine.jsonl"))
    assert all(measured.alpha.value == 1 for measured in found.agreement.values())
    assert not check(label("check=mine.jsonl")).must_fix

    rows = [json.loads(line) for line in Path("mine.jsonl").read_text().splitlines()]
    write_rows(Path("train.jsonl"), [row for row in rows if row["group"] < "G"])
    write_rows(Path("validation.jsonl"), [row for row in rows if row["group"] >= "G"])
    settings = ["model=tfidf", "tracking=none", "name=mine", "behaviour=null", "resamples=100"]
    data = ["data.train=[train.jsonl]", "data.validation=[validation.jsonl]", "data.test=[]"]
    trained = train(read_config(composed("train", *settings, *data), TrainConfig))

    Path("new.txt").write_text("The junta threatened to bomb Kesh.")
    job = ["input=new.txt", "output=out.jsonl", f"model_dir={trained.directory}"]
    predict(read_config(composed("predict", *job), PredictConfig))
    (predicted,) = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert predicted["labels"] == ["threat"]

    better = label("input=articles", "output=again.jsonl", f"model_dir={trained.directory}")
    voters = {item["voter"] for task in make_queue(better).tasks for item in task.evidence}
    assert "model:mine" in voters
