"""What a Spark worker does with its share of the rows: the same work as a local job does.

Rows come as Arrow batches with the place where each was read. They pass through the readers,
windows, scoring and columns of a local job, so a cluster says what a laptop says. This module
needs no Spark, only pyarrow.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from stance.errors import UserError
from stance.model import StanceModel, load_model
from stance.prediction.formats import Columns, Parquet
from stance.prediction.scoring import Settings, score_texts
from stance.prediction.windows import Window, windows_of
from stance.text.documents import Layout, Record, parquet_record
from stance.text.sources import Meter

PATH = "_stance_path"
"""Column of the rows that come in: the URI of the file that a row was read from."""

FILE, ROW, REASON = "_stance_file", "_stance_row", "_stance_reason"
"""Columns of the rows that go out: the number of the file, the row in it, why it was rejected."""


@dataclass(frozen=True)
class Share:
    """What every worker needs to know.

    `model` is the name under which Spark unpacked the model's folder, and `digest` the digest that
    it must have. `files` maps the keys of input files to their names, in order. The columns carry
    `FILE` and `ROW` along like any other.
    """

    model: str
    digest: str
    engine: str
    cascade: bool
    settings: Settings
    layout: Layout
    window_size: int
    columns: Columns
    files: Mapping[str, str]


def file_key(uri: str) -> str:
    """Return an input file's URI in one form: Hadoop writes `file:/a%20b` and `file:///a b`."""
    return unquote(re.sub(r"^(\w+):/+", r"\1:/", uri))


def score_share(share: Share, batches: Iterable[Any]) -> Iterator[Any]:
    """Score the rows of Arrow batches and yield batches of labelled sentences, then of rejects."""
    import pyarrow as pa

    form = Parquet(share.columns)
    schema = form.schema.append(pa.field(REASON, pa.string()))
    order = {name: number for number, name in enumerate(share.files.values())}
    for window in windows_of(_records(share, batches), Meter(), share.window_size):
        if window.documents:
            model = _model(share.model, share.digest, share.engine, share.cascade)
            texts = [document.text for document in window.documents]
            batch = form.batch(window.documents, score_texts(model, texts, share.settings))
            missing = pa.nulls(len(batch), pa.string())
            yield pa.record_batch([*batch.columns, missing], schema=schema)
        if window.rejects:
            yield _rejects(window, order, schema)


@functools.cache
def _model(name: str, digest: str, engine: str, cascade: bool) -> StanceModel:
    """Load the model once in the life of a worker process."""
    model = load_model(_unpacked(name), engine, cascade=cascade)
    if model.digest != digest:
        raise UserError(f"{name}: the model was changed while it was in use")
    return model


def _unpacked(name: str) -> Path:
    from pyspark import SparkFiles

    return Path(SparkFiles.get(name))


def _records(share: Share, batches: Iterable[Any]) -> Iterator[Record]:
    import pyarrow as pa

    numbers = {
        key: (pa.scalar(number, pa.int32()), name)
        for number, (key, name) in enumerate(share.files.items())
    }
    for batch in batches:
        for index in range(len(batch)):
            values = {
                name: column[index]
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }
            values[FILE], name = numbers[file_key(values.pop(PATH).as_py())]
            yield parquet_record(name, values[ROW].as_py(), values, share.layout)


def _rejects(window: Window, order: Mapping[str, int], schema: Any) -> Any:
    import pyarrow as pa

    found = {
        "document_id": [reject.id for reject in window.rejects],
        FILE: [order[reject.source] for reject in window.rejects],
        ROW: [reject.row for reject in window.rejects],
        REASON: [reject.reason for reject in window.rejects],
    }
    count = len(window.rejects)
    arrays = [
        pa.array(found[field.name], field.type)
        if field.name in found
        else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.record_batch(arrays, schema=schema)
