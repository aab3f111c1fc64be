"""The story of a prediction job on Spark: Parquet in, the same sentences scored by many machines.

The driver prepares and checks what a local job checks; the workers do what
`stance.prediction.shares` says. Everything scored is kept in a folder beside the output first, then
sorted into the order of the input and put in its place in one step. Spark itself repeats what a
lost machine had begun; a job that is killed as a whole starts anew and leaves the old output as it
was.
"""

import contextlib
import functools
import heapq
import importlib.util
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import time
import uuid
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import stance
from stance.classifiers.cascade import check_first_stage
from stance.classifiers.engines import AUTO, ONNX, ONNX_INT8, choose_engine
from stance.config import PredictConfig, SparkConfig
from stance.errors import UserError
from stance.model import ModelDescription
from stance.prediction.batch import (
    Counts,
    absolute_output,
    carried_columns,
    describe,
    layout_of,
    library_versions,
    model_facts,
    model_name,
    settings_of,
)
from stance.prediction.formats import Columns, Parquet, carried_names
from stance.prediction.journal import open_journal
from stance.prediction.shares import FILE, PATH, REASON, ROW, Share, file_key, score_share
from stance.text.documents import Reject, columns_of
from stance.text.sources import (
    MANIFEST,
    REJECTS,
    STANDARD_INPUT,
    DamagedSource,
    Source,
    Sources,
    find_sources,
)

_SETTINGS = {
    "spark.executorEnv.OMP_NUM_THREADS": "1",  # Spark runs one worker a core already
    "spark.python.worker.reuse": "true",  # one load of the model a worker
    "spark.sql.caseSensitive": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "128",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_ROWS_PER_TASK = 5_000
_TASKS_PER_CORE = 8
_PATIENCE = 5.0
"""Seconds in which a master must answer."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class SparkOutcome:
    """Where the results of a job lie, what became of its records, and how long it took."""

    output: str
    rejects: str | None
    manifest: str
    counts: Counts
    ignored: tuple[str, ...]
    written: tuple[str, ...]
    seconds: float
    report: None = None
    unreported: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Input:
    """Rows to be scored, the names of their files by key, and files that cannot be read."""

    rows: Any
    files: dict[str, str]
    damaged: list[Reject]
    ignored: tuple[str, ...]
    written: tuple[str, ...]
    digest: str | None


def predict_on_spark(config: PredictConfig, directory: Path | None = None) -> SparkOutcome:
    """Label every sentence of Parquet files on a Spark master.

    Args:
        config: what to predict, and how.
        directory: the model's folder, where it is not `model_dir` itself but was fetched from it.

    Raises:
        UserError: Spark, the input, the output, the model or a setting cannot be used.
    """
    began = time.monotonic()
    output = _check_output(config)
    sources = _local_sources(config)
    model = describe(config, directory)
    if config.cascade:
        check_first_stage(model.directory)
    engine = _worker_engine(model, config.spark.engine)
    with _alone(output), _session(config.spark) as spark, _staging(spark, output) as staging:
        found = _read(spark, config, sources)
        rows = found.rows.count()
        scored = _score(spark, config, found, rows, model, engine, staging)
        counts = _counts(scored, rows, found, model)
        rejects = f"{output}{REJECTS}" if counts.rejects else None
        staging.write(f"{output}{REJECTS}", _rejects(scored, found) if rejects else None)
        staging.place(scored.where(f"{REASON} is null"), output)
        outcome = SparkOutcome(
            output=output,
            rejects=rejects,
            manifest=f"{output}{MANIFEST}",
            counts=counts,
            ignored=found.ignored,
            written=found.written,
            seconds=time.monotonic() - began,
        )
        manifest = _manifest(config, outcome, found, model, engine, spark)
        staging.write(outcome.manifest, [f"{json.dumps(manifest, indent=2)}\n"])
    return outcome


def _check_output(config: PredictConfig) -> str:
    """Hold that the output can be written; return it as an absolute path or a URI."""
    output = config.output or ""
    if not output.endswith(".parquet"):
        raise UserError(
            f"output: {config.output}: engine=spark writes Parquet; name a folder that ends in "
            f".parquet"
        )
    if config.report:
        raise UserError("report: engine=spark writes no report; set report=false")
    return output if _has_scheme(output) else str(absolute_output(output))


def _local_sources(config: PredictConfig) -> Sources | None:
    """Find the input's files if it is a path of this machine, not a URI."""
    if config.input == STANDARD_INPUT:
        raise UserError("input: engine=spark reads Parquet files, not standard input")
    if _has_scheme(config.input):
        return None
    sources = find_sources(config.input)
    for source in sources.files:
        if source.format != "parquet":
            raise UserError(f"input: {source.path}: engine=spark reads Parquet, no {source.format}")
        if not _has_scheme(config.output or "") and source.path.resolve().is_relative_to(
            Path(str(config.output)).resolve()
        ):
            raise UserError(f"output: {config.output}: this is the input")
    return sources


def _has_scheme(where: str) -> bool:
    return re.match(r"\w[\w+.-]*://", where) is not None


def _worker_engine(model: ModelDescription, engine: str) -> str:
    """Return the engine of the workers; `auto` is the fastest in fp32.

    In int8 the last bit of an activation may differ between kinds of processors, and with it the
    third digit of a probability.
    """
    chosen = choose_engine(model.kind, model.directory, engine)
    if engine == AUTO and chosen == ONNX_INT8:
        return choose_engine(model.kind, model.directory, ONNX)
    return chosen


@contextlib.contextmanager
def _alone(output: str) -> Iterator[None]:
    """Keep another job from writing the same output, where it lies on this machine."""
    if _has_scheme(output):
        yield
        return
    with open_journal(Path(output)):
        yield


def _check_spark(master: str | None) -> None:
    """Hold that Spark can start, in words that say what is missing."""
    if importlib.util.find_spec("pyspark") is None:
        raise UserError(
            "engine: 'spark' needs pyspark, which is not installed: pip install 'pyspark>=4,<4.3'"
        )
    home = os.environ.get("JAVA_HOME")
    if not shutil.which("java", path=f"{home}/bin" if home else None):
        where = f"in JAVA_HOME ({home})" if home else "on the path"
        raise UserError(f"engine: 'spark' needs Java 17 or later, and there is none {where}")
    if master and master.startswith("spark://"):
        _check_masters(master)


def _check_masters(master: str) -> None:
    """Hold that one of the masters of a standalone cluster answers; Spark would wait a minute."""
    reasons = []
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=_PATIENCE):
                return
        except (OSError, ValueError, OverflowError) as error:
            reasons.append(str(error))
    raise UserError(f"spark.master: {master}: cannot be reached: {reasons[0]}")


@contextlib.contextmanager
def _session(config: SparkConfig) -> Iterator[Any]:
    """Start a session, or take the one that runs; what Spark says goes to a file.

    Raises:
        UserError: Spark cannot start, or ends the job.
    """
    master = config.master or None
    _check_spark(master)
    with tempfile.TemporaryDirectory(prefix="stance-spark-") as folder, _plain_errors(master):
        from pyspark.sql import SparkSession

        runs = SparkSession.getActiveSession()
        builder = SparkSession.builder.appName("stance")
        if master:
            builder = builder.master(master)
        settings = {**_SETTINGS, "spark.sql.warehouse.dir": folder, **config.options}
        for key, value in settings.items():
            builder = builder.config(key, str(value))
        with _quiet(Path(folder) / "spark.log", master):
            spark = builder.getOrCreate()
        try:
            yield spark
        finally:
            if runs is None:
                spark.stop()


@contextlib.contextmanager
def _quiet(log: Path, master: str | None) -> Iterator[None]:
    """Let the Java machine that is started here, and its workers, write to a file.

    Workers of this machine run this Python; those of a cluster the one that its settings name.
    """
    added = {"OMP_NUM_THREADS": "1"}
    if not master or master.startswith("local"):
        added["PYSPARK_PYTHON"] = os.environ.get("PYSPARK_PYTHON", sys.executable)
    before = {name: os.environ.get(name) for name in added}
    kept = [os.dup(number) for number in (1, 2)]
    os.environ.update(added)
    try:
        with log.open("ab") as stream:
            for number in (1, 2):
                os.dup2(stream.fileno(), number)
        yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _plain_errors(master: str | None) -> Iterator[None]:
    """Say in one line what Spark reports; errors of our own code on a worker stay whole."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "PySpark does not yet fully support", FutureWarning)
            yield
    except (PySparkException, Py4JError) as error:
        text = str(error)
        if ours := re.search(r"stance\.errors\.UserError: (.*)", text):
            raise UserError(ours[1]) from error
        if "Traceback (most recent call last)" in text:
            raise
        where = f" (spark.master={master})" if master else ""
        raise UserError(f"engine: spark{where}: {first_words(text)}") from error


def first_words(text: str) -> str:
    """Return what of a Java error concerns a user: what failed, and the first cause."""
    lines = [line.strip().removeprefix(": ") for line in text.splitlines()]
    noise = ("at ", "...", "An error occurred", "Caused by:")
    said = [line for line in lines if line and not line.startswith(noise)]
    causes = [line for line in lines if line.startswith("Caused by:")]
    return " ".join([*(said[:1] or lines[:1]), *causes[-1:]])[:500]


class _Staging:
    """A folder beside the output, on whatever file system that lies; Hadoop knows them all."""

    def __init__(self, spark: Any, output: str) -> None:
        self._spark = spark
        self._java = spark.sparkContext._jvm
        parent, _, name = output.rpartition("/")
        self._folder = f"{parent}/.{name}.stance-spark"
        target = self._path(output)
        self._files = target.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
        self._files.setWriteChecksum(False)
        folder = self._files.exists(target) and self._files.getFileStatus(target).isDirectory()
        if folder and not self._files.exists(self._path(f"{output}/_SUCCESS")):
            raise UserError(f"output: {output}: a folder that no Spark job has finished")
        self.remove()
        if not self._files.mkdirs(self._path(self._folder)):
            raise UserError(f"output: {output}: cannot be written: no folder {self._folder}")

    def keep(self, table: Any) -> Any:
        """Write a table into the folder and return it as it was read back."""
        where = self.address(f"{self._folder}/scored")
        table.write.parquet(where)
        return self._spark.read.schema(table.schema).parquet(where)

    def place(self, table: Any, output: str) -> None:
        """Write scored rows in the order of the input and put them in the output's place."""
        ordered = table.orderBy(FILE, ROW, "sentence").drop(FILE, ROW, REASON)
        ordered.write.option("compression", "zstd").parquet(self.address(f"{self._folder}/whole"))
        self._put("whole", output)

    def write(self, target: str, pieces: Iterable[str] | None) -> None:
        """Write text to a file beside the output, or remove the file if there is none."""
        if pieces is None:
            self._files.delete(self._path(target), True)
            return
        stream = self._files.create(self._path(f"{self._folder}/text"), True)
        try:
            buffer = ""
            for piece in pieces:
                buffer += piece
                if len(buffer) > _CHUNK:
                    stream.write(bytearray(buffer.encode()))
                    buffer = ""
            stream.write(bytearray(buffer.encode()))
        finally:
            stream.close()
        self._put("text", target)

    def remove(self) -> None:
        """Remove the folder and everything in it."""
        self._files.delete(self._path(self._folder), True)

    def address(self, where: str) -> str:
        """Return a path so that Spark does not take it for a path of a cluster's own storage."""
        return where if _has_scheme(where) else f"file://{where}"

    def _put(self, name: str, target: str) -> None:
        ready, place = self._path(f"{self._folder}/{name}"), self._path(target)
        if self._files.exists(place):
            self._files.rename(place, self._path(f"{self._folder}/old-{name}"))
        if not self._files.rename(ready, place):
            raise UserError(f"output: {target}: cannot be written: nothing can be moved there")
        self._files.delete(self._path(f"{self._folder}/old-{name}"), True)

    def _path(self, where: str) -> Any:
        return self._java.org.apache.hadoop.fs.Path(self.address(where))


@contextlib.contextmanager
def _staging(spark: Any, output: str) -> Iterator[_Staging]:
    staging = _Staging(spark, output)
    try:
        yield staging
    finally:
        staging.remove()


def _read(spark: Any, config: PredictConfig, sources: Sources | None) -> _Input:
    """Read the input's rows, each with the file and the row where it stands."""
    reader = spark.read.option("mergeSchema", "true").option("recursiveFileLookup", "true")
    layout = layout_of(config)
    if sources is None:
        table = reader.parquet(config.input)
        uris = sorted(table.inputFiles(), key=lambda uri: file_key(uri).split("/"))
        root = f"{file_key(config.input).rstrip('/')}/"
        keys = [file_key(uri) for uri in uris]
        names = [k.removeprefix(root) if k.startswith(root) else k.split("/")[-1] for k in keys]
        files = dict(zip(keys, names, strict=True))
        return _Input(_located(table, config), files, [], (), (), None)
    carried_columns(sources, layout, fixed=True)
    sound, damaged = _sound(sources, config)
    files = {file_key(f"file:{s.path.absolute()}"): s.name for s in sources.files}
    if sound:
        # What looks like a pattern is part of a name here: patterns were resolved above.
        names = [re.sub(r"([\[\]{}*?\\])", r"\\\1", str(s.path.absolute())) for s in sound]
        rows = _located(reader.parquet(*(f"file://{name}" for name in names)), config)
    else:
        columns = dict.fromkeys(name for name in (layout.id, layout.text) if name)
        empty = ", ".join(f"`{name}` string" for name in columns)
        rows = _placed(spark.createDataFrame([], empty), "''", "0")
    return _Input(rows, files, damaged, sources.ignored, sources.written, sources.digest)


def _sound(sources: Sources, config: PredictConfig) -> tuple[list[Source], list[Reject]]:
    """Part the files that Spark can read from those that are damaged."""
    sound: list[Source] = []
    damaged: list[Reject] = []
    for source in sources.files:
        try:
            columns_of(source, layout_of(config))
            sound.append(source)
        except DamagedSource as error:
            damaged.append(Reject(source.name, None, None, str(error)))
    return sound, damaged


def _located(table: Any, config: PredictConfig) -> Any:
    """Hold that a table has its columns, and add to each row where it stands."""
    from pyspark.sql.types import StringType

    types = {field.name: field.dataType for field in table.schema}
    for key, column in (("text_column", config.text_column), ("id_column", config.id_column)):
        if column and column not in types:
            names = ", ".join(types)
            raise UserError(f"{config.input}: {key}: no column {column!r}; the columns are {names}")
    if not isinstance(types[config.text_column], StringType):
        kind = types[config.text_column].simpleString()
        raise UserError(f"{config.input}: the column {config.text_column!r} is {kind}, not text")
    return _placed(table, "_metadata.file_path", "_metadata.row_index + 1")


def _placed(table: Any, path: str, row: str) -> Any:
    return table.selectExpr("*", f"{path} as {PATH}", f"cast({row} as bigint) as {ROW}")


def _score(
    spark: Any,
    config: PredictConfig,
    found: _Input,
    rows: int,
    model: ModelDescription,
    engine: str,
    staging: _Staging,
) -> Any:
    """Score all rows on the workers; return labelled sentences and rejects as they were kept."""
    layout = layout_of(config)
    columns = _columns(found.rows.schema, model, (layout.text, layout.id))
    with tempfile.TemporaryDirectory(prefix="stance-spark-") as folder:
        name = f"stance-model-{uuid.uuid4().hex[:12]}"
        context = spark.sparkContext
        context.addArchive(f"{_packed(model.directory, Path(folder) / f'{name}.zip')}#{name}")
        package = Path(stance.__file__).parent
        context.addPyFile(str(_packed(package, Path(folder) / "stance.zip", inside="stance")))
        share = Share(
            model=name,
            digest=model.digest,
            engine=engine,
            cascade=config.cascade,
            settings=settings_of(config),
            layout=layout,
            window_size=config.window_size,
            columns=columns,
            files=found.files,
        )
        tasks = max(context.defaultParallelism * _TASKS_PER_CORE, rows // _ROWS_PER_TASK + 1)
        spread = found.rows.repartition(min(tasks, max(rows, 1)), PATH, ROW)
        work = functools.partial(score_share, share)
        return staging.keep(spread.mapInArrow(work, _schema(found.rows.schema, columns)))


def _columns(schema: Any, model: ModelDescription, own: tuple[str, str]) -> Columns:
    import pyarrow as pa
    from pyspark.sql.pandas.types import to_arrow_schema

    arrow = to_arrow_schema(schema)
    types = {field.name: field.type for field in arrow if field.name not in (*own, PATH)}
    carried = carried_names(list(types), model.codebook)
    carried[FILE], types[FILE] = FILE, pa.int32()
    return Columns(model.codebook, model_name(model), carried, types)


def _schema(schema: Any, columns: Columns) -> Any:
    """Return what Spark is to expect: our columns, those carried along with their own types."""
    from pyspark.sql.pandas.types import from_arrow_type
    from pyspark.sql.types import IntegerType, StringType, StructField, StructType

    carried = {new: old for old, new in columns.carried.items()}
    types: dict[str, Any] = {field.name: field.dataType for field in schema}
    types[FILE] = IntegerType()
    fields = [
        StructField(
            field.name,
            types[carried[field.name]] if field.name in carried else from_arrow_type(field.type),
        )
        for field in Parquet(columns).schema
    ]
    return StructType([*fields, StructField(REASON, StringType())])


def _packed(folder: Path, archive: Path, inside: str = "") -> Path:
    """Pack a folder's files into an archive that Spark hands to its workers."""
    with zipfile.ZipFile(archive, "w") as stream:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                stream.write(path, Path(inside) / path.relative_to(folder))
    return archive


def _counts(scored: Any, rows: int, found: _Input, model: ModelDescription) -> Counts:
    """Count what was kept."""
    kept = f"{REASON} is null"
    labels = model.codebook.names
    (row,) = scored.selectExpr(
        f"count_if({kept} and sentence = 0)",
        f"count_if({kept})",
        f"count_if(not {kept})",
        "count_if(windows > 1)",
        "count_if(windows = 0)",
        "count_if(uncertain)",
        *(f"count_if(array_contains(labels, '{name}'))" for name in labels),
    ).collect()
    documents, sentences, rejects, windowed, settled, uncertain = row[:6]
    return Counts(
        documents=documents,
        sentences=sentences,
        rejects=rejects + len(found.damaged),
        blank=rows - documents - rejects,
        windowed=windowed,
        settled=settled,
        uncertain=uncertain,
        labels=dict(zip(labels, row[6:], strict=True)),
    )


def _rejects(scored: Any, found: _Input) -> Iterator[str]:
    """Write the rejects as lines, in the order of the input."""
    names = list(found.files.values())
    order = {name: number for number, name in enumerate(names)}
    rows = scored.where(f"{REASON} is not null").orderBy(FILE, ROW)
    rejected = (
        Reject(names[row[FILE]], row[ROW], row["document_id"], row[REASON])
        for row in rows.select(FILE, ROW, "document_id", REASON).toLocalIterator()
    )
    for reject in heapq.merge(found.damaged, rejected, key=lambda r: (order[r.source], r.row or 0)):
        yield f"{json.dumps(asdict(reject), ensure_ascii=False)}\n"


def _manifest(
    config: PredictConfig,
    outcome: SparkOutcome,
    found: _Input,
    model: ModelDescription,
    engine: str,
    spark: Any,
) -> dict[str, Any]:
    sentences = outcome.counts.sentences
    return {
        "output": {"path": outcome.output.rpartition("/")[2]},
        "rejects": outcome.rejects.rpartition("/")[2] if outcome.rejects else None,
        "input": {
            "path": config.input,
            "files": len(found.files),
            "ignored": list(found.ignored),
            "written": list(found.written),
            "digest": found.digest,
        },
        "model": model_facts(model, config.model_dir, engine),
        "settings": asdict(config),
        "counts": asdict(outcome.counts),
        "this_run": {
            "seconds": round(outcome.seconds, 3),
            "sentences": sentences,
            "sentences_per_second": round(sentences / outcome.seconds, 1),
            "master": spark.sparkContext.master,
        },
        "versions": {**library_versions(), "spark": spark.version},
    }
