"""The runs of a sweep have names of their own, and their parent says which is best and why."""

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from stance.errors import UserError
from stance.sweeps import claim_name, name_in_sweep, summarize_sweep, sweep_table, varied
from stance.tracking import Child, MlflowRun, Store, start_run, sweep_parent


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["model=tfidf", "seed=1"], "tfidf-seed1"),
        (["model=tfidf", "model.C=4", "+model.cues=true"], "tfidf-seed1-C4-cuestrue"),
        (["model.checkpoint=/a/b c,d"], "tfidf-seed1-checkpointa_b_c_d"),
        (["decision.operating_point=precision@0.9"], "tfidf-seed1-operating_pointprecision_0.9"),
        (["name=mine", "model.C=4"], "tfidf-seed1"),
    ],
)
def test_a_run_of_a_sweep_is_named_after_what_it_was_given(overrides: list[str], name: str) -> None:
    assert name_in_sweep("tfidf-seed1", overrides) == name


def test_a_job_of_a_sweep_may_run_again_but_not_under_anothers_name(tmp_path: Path) -> None:
    for _ in range(2):
        claim_name("mine", "seed: 1\n", tmp_path)
    claim_name("other", "seed: 2\n", tmp_path)
    with pytest.raises(UserError, match="two jobs of this sweep would both be saved as 'mine'"):
        claim_name("mine", "seed: 2\n", tmp_path)


def child(name: str, f1: float, **parameters: str) -> Child:
    return Child(name, name, parameters, {"validation/f1_macro": f1, "validation/f1/a": f1 / 2})


def test_the_table_shows_what_varied_and_the_best_first() -> None:
    children = [child("x", 0.5, C="1", seed="1"), child("y", 0.7, C="4", seed="1")]
    assert varied(children) == ["C"]
    table = sweep_table(children)
    assert table["run"] == ["y", "x"]
    assert table["C"] == ["4", "1"]
    assert table["validation/f1_macro"] == [0.7, 0.5]


def test_a_store_that_was_moved_says_where_its_files_go(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with start_run(Store("mlflow", "", "stance", models_dir), "here"):
        assert not caplog.records
    moved = models_dir.rename(models_dir.with_name("moved"))
    with start_run(Store("mlflow", "", "stance", moved), "there"):
        pass
    (warning,) = caplog.records
    assert warning.getMessage().endswith(f"in {(models_dir / 'mlruns').as_uri()}")


def test_the_parent_knows_its_best_child(models_dir: Path) -> None:
    import mlflow

    store = Store("mlflow", "", "stance", models_dir)
    parent = sweep_parent(store, "logs/today_sweep")
    assert parent and sweep_parent(store, "logs/today_sweep") == parent
    other = sweep_parent(store, "today's_sweep")
    assert other != parent and sweep_parent(store, "today's_sweep") == other
    summarize_sweep(store, parent)  # nothing has finished: nothing to say
    for name, f1, strength in (("low", 0.4, 1), ("high", 0.6, 4)):
        with start_run(store, name, parent=parent) as run:
            run.log_parameters({"C": strength, "seed": 1})
            run.log_metrics({"validation/f1_macro": f1})
        summarize_sweep(store, parent)
    client = mlflow.MlflowClient(f"sqlite:///{models_dir / 'mlflow.db'}")
    found = client.get_run(parent)
    assert found.data.tags["stance.best_name"] == "high"
    assert found.data.tags["stance.kind"] == "sweep"
    assert found.data.metrics["validation/f1_macro"] == 0.6
    artifacts = {path.path for path in client.list_artifacts(parent)}
    assert {"sweep.json", "what_mattered.png"} <= artifacts
    table = client.load_table(found.info.experiment_id, "sweep.json", run_ids=[parent])
    assert list(table["run"]) == ["high", "low"]  # once each, though it was written twice


def test_a_server_that_goes_away_costs_the_record_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = Store("mlflow", "", "stance", tmp_path / "models")
    parent = sweep_parent(store, "sweep")
    assert parent
    with start_run(store, "first", parent=parent) as run:
        assert isinstance(run, MlflowRun)
        run.client = MlflowClient("http://127.0.0.1:9")
    assert "not recorded in MLflow: the run's end" in caplog.text
    away = replace(store, uri="http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"MLflow cannot start at http://127\.0\.0\.1:9"):
        summarize_sweep(away, parent)
