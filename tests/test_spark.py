"""On Spark the same sentences get the same labels and probabilities, and no row is lost."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ACTORS, OBJECTS, ROOT, WORDS
from test_prediction import configure, parquet, predict_script

from stance.classifiers.engines import ONNX
from stance.config import PredictConfig, SparkConfig
from stance.errors import UserError
from stance.model import load_model
from stance.prediction import shares
from stance.prediction import spark as spark_job
from stance.prediction.batch import predict
from stance.prediction.formats import Columns, carried_names
from stance.prediction.scoring import Settings
from stance.prediction.shares import FILE, PATH, REASON, ROW, Share, file_key, score_share
from stance.prediction.spark import predict_on_spark
from stance.text.documents import Layout

PROBABILITIES = ("p_praise", "p_blame")

needs_spark = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or shutil.which("java") is None,
    reason="needs pyspark (the extra `spark`) and Java 17",
)


def articles(count: int) -> dict[str, Any]:
    """Return a table of articles with carried columns of awkward types; some rows are bad."""
    verbs = [*WORDS["praise"], *WORDS["blame"], "visited"]
    texts: list[str | None] = [
        f"{ACTORS[n % 6]} {verbs[n % len(verbs)]} {OBJECTS[n % 4]}. The union waited {n % 7}."
        for n in range(count)
    ]
    texts[3], texts[5], texts[8] = None, " ", "Nobody praised\0 it."
    return {
        "text": texts,
        "day": [f"0{n}" for n in range(count)],
        "model": ["NA"] * count,
        "when": pa.array([None, *range(1, count)], pa.timestamp("us")),
        "tags": pa.array([[("a", n)] if n % 2 else None for n in range(count)], MAP),
    }


MAP = pa.map_(pa.string(), pa.int32())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with hard names, two sound tables, one that is cut in half."""
    folder = tmp_path / "ночь, {a}=(1) [x] 100% #1?"
    (folder / "b").mkdir(parents=True)
    pq.write_table(pa.table(articles(40)), folder / "one [1].parquet", row_group_size=8)
    pq.write_table(pa.table(articles(12)), folder / "b/two.parquet")
    not_utf8 = pa.array([b"Good.", b"\xff\xfe", b"The mayor praised it."], pa.binary())
    pq.write_table(pa.table({"text": not_utf8.view(pa.string())}), folder / "c.parquet")
    (folder / "half.parquet").write_bytes((folder / "one [1].parquet").read_bytes()[:900])
    return folder


def table_of(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]


def hold_alike(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in PROBABILITIES:
            assert abs(one.pop(name) - other.pop(name)) <= 1e-6
        assert one == other


@needs_spark
def test_spark_says_what_the_local_engine_says(
    source: Path, encoder_model: Path, tmp_path: Path
) -> None:
    local = predict(
        configure(
            input=source,
            output=tmp_path / "local.parquet",
            model_dir=encoder_model,
            engine=ONNX,
        )
    )
    output = tmp_path / "spark.parquet"
    done = predict_script(
        f"input={source}",
        f"output={output}",
        f"model={encoder_model}",
        "engine=spark",
        "spark.master=local[2]",
    )
    assert (done.returncode, done.stderr) == (0, "")
    hold_alike(table_of(output), table_of(local.output))
    rejects = Path(f"{output}.rejects.jsonl")
    assert local.rejects and rejects.read_text() == local.rejects.read_text()
    manifest = json.loads(Path(f"{output}.manifest.json").read_text())
    assert manifest["counts"] == json.loads(local.manifest.read_text())["counts"]
    assert manifest["model"]["engine"] == ONNX
    left = {path.name for path in tmp_path.iterdir() if path.name.startswith((".", "spark"))}
    assert left == {output.name, rejects.name, f"{output.name}.manifest.json"}
    assert not list(ROOT.glob("spark-warehouse")) and not list(ROOT.glob("artifacts"))


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """A session that the jobs of several tests share."""
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = builder.getOrCreate()
    yield session
    session.stop()


def on_spark(source: Path, output: Path, model: Path, **values: Any) -> PredictConfig:
    return configure(
        input=source,
        output=output,
        model_dir=model,
        engine="spark",
        spark=SparkConfig(master="local[2]"),
        **values,
    )


@needs_spark
def test_an_output_is_replaced_as_a_whole_and_an_empty_input_gives_an_empty_one(
    spark: Any, rules_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet(text=["The mayor praised it."]))
    (tmp_path / "none.parquet").write_bytes(parquet(text=pa.array([], pa.string())))
    output = tmp_path / "o.parquet"
    for name, count in (("a.parquet", 1), ("none.parquet", 0), ("a.parquet", 1)):
        outcome = predict_on_spark(on_spark(tmp_path / name, output, rules_model))
        assert outcome.counts.sentences == len(table_of(output)) == count
    uri = on_spark(tmp_path / "a.parquet", output, rules_model)
    uri.input, uri.output = f"file://{uri.input}", f"file://{uri.output}"
    assert predict_on_spark(uri).counts.labels == {"praise": 1, "blame": 0}
    assert [row["document_id"] for row in table_of(output)] == ["a.parquet:1"]
    (tmp_path / "mine.parquet").mkdir()
    (tmp_path / "mine.parquet/notes").write_text("x")
    with pytest.raises(UserError, match="a folder that no Spark job has finished"):
        predict_on_spark(on_spark(tmp_path / "a.parquet", tmp_path / "mine.parquet", rules_model))
    assert (tmp_path / "mine.parquet/notes").exists()


@needs_spark
def test_a_file_damaged_within_stops_the_job_and_leaves_the_old_output(
    spark: Any, rules_model: Path, tmp_path: Path
) -> None:
    from test_prediction import broken_parquet

    output = tmp_path / "o.parquet"
    (tmp_path / "a.parquet").write_bytes(parquet(text=["The mayor praised it."]))
    predict_on_spark(on_spark(tmp_path / "a.parquet", output, rules_model))
    before = table_of(output)
    (tmp_path / "bad.parquet").write_bytes(broken_parquet())
    with pytest.raises(UserError, match=r"bad\.parquet"):
        predict_on_spark(on_spark(tmp_path / "bad.parquet", output, rules_model))
    assert table_of(output) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@needs_spark
def test_a_killed_job_leaves_the_old_output_and_can_be_run_again(
    source: Path, rules_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "o.parquet"
    command = [sys.executable, ROOT / "predict.py", f"input={source}", f"output={output}"]
    command += [f"model={rules_model}", "engine=spark", "spark.master=local[1]"]
    process = subprocess.Popen(command, cwd=ROOT)
    while not (tmp_path / ".o.parquet.stance-spark").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not output.exists()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert len(table_of(output)) > 80
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@needs_spark
def test_the_registered_pyfunc_works_through_spark_udf(
    spark: Any, rules_model: Path, models_dir: Path, codebook: Any
) -> None:
    import mlflow

    from stance.tracking import Store, register_model, start_run

    store = Store("mlflow", "", "spark", models_dir)
    with start_run(store, "promotion") as run:
        register_model(
            store,
            run,
            rules_model,
            name="verdicts",
            alias="champion",
            labels=codebook.names,
            description="",
            tags={},
        )
    mlflow.set_tracking_uri(f"sqlite:///{models_dir / 'mlflow.db'}")
    label = mlflow.pyfunc.spark_udf(spark, "models:/verdicts@champion", env_manager="local")
    texts = [f"The mayor {verb} it {n}." for n in range(9) for verb in ("praised", "blamed")]
    table = spark.createDataFrame([(text,) for text in texts], "text string").repartition(3)
    rows = table.select("text", label("text").alias("found")).collect()
    expected = load_model(rules_model).predict([row.text for row in rows])
    assert len(rows) == len(texts)
    for row, labels, probabilities in zip(
        rows, expected.label_sets, expected.probabilities, strict=True
    ):
        assert row.found.labels == ",".join(labels)
        for name, value in zip(PROBABILITIES, probabilities, strict=True):
            assert abs(row.found[name] - value) <= 1e-6


def share_of(model: Path, codebook: Any, **values: Any) -> Share:
    names = carried_names(["day", "windows"], codebook)
    types = {"day": pa.string(), "windows": pa.int64(), FILE: pa.int32(), ROW: pa.int64()}
    settings: dict[str, Any] = {
        "model": str(model),
        "digest": load_model(model).digest,
        "engine": "torch",
        "cascade": False,
        "settings": Settings(),
        "layout": Layout(),
        "window_size": 1000,
        "columns": Columns(codebook, "m", {**names, FILE: FILE, ROW: ROW}, types),
        "files": {"file:/a b": "a b", "file:/c": "c"},
    }
    return Share(**{**settings, **values})


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The models that a worker loads, where no Spark unpacks them."""
    found: list[Path] = []

    def load(path: Path, *arguments: Any, **options: Any) -> Any:
        found.append(path)
        return load_model(path, *arguments, **options)

    monkeypatch.setattr(shares, "_unpacked", Path)
    monkeypatch.setattr(shares, "load_model", load)
    shares._model.cache_clear()
    return found


def test_a_worker_loads_its_model_once_and_keeps_every_row(
    rules_model: Path, codebook: Any, loads: list[Path]
) -> None:
    share = share_of(rules_model, codebook)
    texts = ["The mayor praised it.", "A\0.", None, "A minister blamed it. The union waited."]
    table = pa.table(
        {
            "text": texts * 30,
            "day": [f"0{n}" for n in range(120)],
            "windows": [7] * 120,
            PATH: ["file:///a%20b", "file:/c"] * 60,
            ROW: list(range(1, 121)),
        }
    )
    for _ in range(2):
        found = pa.Table.from_batches(score_share(share, table.to_batches(max_chunksize=10)))
        rows = found.to_pylist()
        rejected = [row for row in rows if row[REASON]]
        assert len(rows) == 30 * 4 and len(rejected) == 30
        assert {row[REASON] for row in rejected} == {"the text holds a NUL character"}
        assert [row[ROW] for row in rejected] == list(range(2, 121, 4))
        kept = [row for row in rows if not row[REASON]]
        assert [row["labels"] for row in kept] == [["praise"], ["blame"], []] * 30
        assert kept[1]["document_id"] == "c:4" and kept[1]["day"] == "03"
        assert {row["input_windows"] for row in kept} == {7}
        assert {(row["document_id"][0], row[FILE]) for row in kept} == {("a", 0), ("c", 1)}
    assert loads == [rules_model]


def test_a_worker_refuses_a_model_that_was_changed(
    rules_model: Path, codebook: Any, loads: list[Path]
) -> None:
    share = share_of(rules_model, codebook, digest="0" * 64)
    table = pa.table({"text": ["A."], "day": ["0"], "windows": [7], PATH: ["file:/c"], ROW: [1]})
    with pytest.raises(UserError, match="was changed"):
        list(score_share(share, table.to_batches()))


def test_a_share_without_rows_loads_nothing(
    rules_model: Path, codebook: Any, loads: list[Path]
) -> None:
    assert list(score_share(share_of(rules_model, codebook), [])) == []
    assert loads == []


def test_a_file_has_one_key_however_it_is_written() -> None:
    keys = {file_key(uri) for uri in ("file:/a b/ц", "file:///a%20b/%D1%86", "file:///a b/ц")}
    assert keys == {"file:/a b/ц"}
    assert file_key("s3a://bucket/a") == "s3a:/bucket/a"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["output=o.csv"], "output: {at}/o.csv: engine=spark writes Parquet"),
        (["output=null"], "engine=spark writes Parquet"),
        (["input=-"], "engine=spark reads Parquet files, not standard input"),
        (["input={at}/a.txt"], "{at}/a.txt: engine=spark reads Parquet, no txt"),
        (["input={at}/no.parquet"], "no such file"),
        (["report=true"], "report: engine=spark writes no report"),
        (["output={at}/a.parquet"], "this is the input"),
        (["output={at}/none/o.parquet"], "cannot be written: No such file"),
        (["spark.engine=int4"], "spark.engine: 'int4' is not among"),
        (["spark.engine=onnx"], "engine: 'onnx' computes transformers"),
        (["cascade=true"], "has no first stage"),
    ],
)
def test_a_mistake_is_found_before_spark_starts(
    arguments: list[str],
    message: str,
    rules_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from hydra import compose, initialize_config_dir

    from stance.config import read_config, register_schemas

    (tmp_path / "a.parquet").write_bytes(parquet(text=["A."]))
    (tmp_path / "a.txt").write_text("A.")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(spark_job, "_session", _unwanted)
    given = {
        "input": f"{tmp_path}/a.parquet",
        "output": f"{tmp_path}/o.parquet",
        "model_dir": str(rules_model),
        "engine": "spark",
        **dict(argument.format(at=tmp_path).split("=", 1) for argument in arguments),
    }
    if given["output"] == "o.csv":
        given["output"] = f"{tmp_path}/o.csv"
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("predict", [f"{key}={value}" for key, value in given.items()])
    with pytest.raises(UserError) as caught:
        predict_on_spark(read_config(composed, PredictConfig))
    assert message.format(at=tmp_path) in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "a.txt"]


def _unwanted(*_: Any) -> Any:
    raise AssertionError("Spark was started")


def test_a_java_error_becomes_what_concerns_the_user() -> None:
    text = (
        "An error occurred while calling o25.parquet.\n: org.apache.spark.SparkException: "
        "[FAILED_READ_FILE.NO_HINT] Encountered error while reading file file:///a.parquet.\n"
        "\tat org.apache.spark.A.b(A.scala:1)\n\t... 20 more\nCaused by: java.io.IOException: x\n"
        "\tat org.apache.spark.C.d(C.scala:1)\nCaused by: java.io.IOException: No space left\n"
    )
    assert spark_job.first_words(text) == (
        "org.apache.spark.SparkException: [FAILED_READ_FILE.NO_HINT] Encountered error while "
        "reading file file:///a.parquet. Caused by: java.io.IOException: No space left"
    )


@pytest.mark.parametrize(
    ("lacks", "message"),
    [
        ("pyspark", "needs pyspark, which is not installed: pip install 'pyspark>=4,<4.3'"),
        ("java", "needs Java 17 or later, and there is none on the path"),
        ("home", "needs Java 17 or later, and there is none in JAVA_HOME (/no/java)"),
        ("master", "spark.master: spark://127.0.0.1:9: cannot be reached"),
    ],
)
def test_what_spark_lacks_is_said_in_words(
    lacks: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find: Callable[[str], Any] = lambda name: None if lacks == "pyspark" else object()  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", find)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    if lacks == "home":
        monkeypatch.setenv("JAVA_HOME", "/no/java")
    if lacks in ("java", "master"):
        monkeypatch.setattr(shutil, "which", lambda *_, **__: "java" if lacks == "master" else None)
    with pytest.raises(UserError) as caught:
        spark_job._check_spark("spark://127.0.0.1:9")
    assert message in str(caught.value)
