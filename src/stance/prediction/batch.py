"""The story of a prediction job: find the input, score it window by window, write it whole.

Each finished window goes to the journal; when all are finished their pieces are joined to the
output, which takes its place in one step, with its rejects and a manifest beside it.
"""

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from itertools import chain, islice
from pathlib import Path
from typing import Any

import stance
from stance.classifiers.cascade import check_first_stage
from stance.classifiers.engines import choose_engine
from stance.config import PredictConfig
from stance.errors import UserError
from stance.model import ModelDescription, describe_model, load_described
from stance.prediction.formats import Columns, Format, carried_names, check_suffix, output_format
from stance.prediction.journal import SPOOL, Journal, open_journal
from stance.prediction.progress import progress
from stance.prediction.report import Tally, columns_seen, fit, fragment, merge, page, tally
from stance.prediction.scoring import Scored, Settings, label_counts, score_texts
from stance.prediction.windows import Window, windows_of
from stance.prediction.workers import Task, score_in_parallel
from stance.text.documents import SAVE_AS_UTF8, Document, Layout, columns_of, read_documents
from stance.text.sources import (
    MANIFEST,
    REJECTS,
    REPORT,
    STANDARD_INPUT,
    DamagedSource,
    Meter,
    Sources,
    find_sources,
    printable,
    spool_standard_input,
)

_WINDOWS_SHOWN = 64
"""Windows whose sentences a report may show: many times as many as a page takes."""

_REPORT_BY = ("date", "source")
"""Columns that a report counts by if none are named."""

_LIBRARIES = ("numpy", "onnxruntime", "pyarrow", "tokenizers", "torch", "transformers")


@dataclass
class Counts:
    """What became of the records.

    `not_utf8` counts rejects that another encoding of the file would save, `windowed` sentences
    that were read in pieces, `settled` those of a first stage.
    """

    documents: int = 0
    sentences: int = 0
    rejects: int = 0
    not_utf8: int = 0
    blank: int = 0
    windowed: int = 0
    settled: int = 0
    uncertain: int = 0
    labels: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Counts") -> None:
        """Add the counts of a window."""
        for name in (
            "documents",
            "sentences",
            "rejects",
            "not_utf8",
            "blank",
            "windowed",
            "settled",
            "uncertain",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for label, count in other.labels.items():
            self.labels[label] = self.labels.get(label, 0) + count


@dataclass(frozen=True)
class Outcome:
    """Where a job's results lie, what became of its records, and how long this run took.

    `resumed` counts the windows that an earlier run had finished, `scored` the sentences of this
    run. `unreported` are columns to report by that no record has, `columns` those there are.
    """

    output: Path
    rejects: Path | None
    report: Path | None
    manifest: Path
    counts: Counts
    ignored: tuple[str, ...]
    written: tuple[str, ...]
    unreported: tuple[str, ...]
    columns: tuple[str, ...]
    resumed: int
    scored: int
    seconds: float


@dataclass(frozen=True)
class _Job:
    config: PredictConfig
    sources: Sources
    layout: Layout
    model: ModelDescription
    engine: str
    format: Format


def predict(config: PredictConfig, directory: Path | None = None) -> Outcome:
    """Label every sentence of the input and write the output, its rejects and its manifest.

    Args:
        config: what to predict, and how.
        directory: the model's folder, where it is not `model_dir` itself but was fetched from it.

    Raises:
        UserError: the input, the output, the model or a setting cannot be used.
    """
    began = time.monotonic()
    output = _check_output(config)
    with open_journal(output) as journal:
        job = _prepare(config, output, journal, directory)
        resumed = journal.resume(_key(job))
        scored = _score(job, journal)
        counts, columns = _write(job, journal)
        missing = (name for name in config.report_by or () if name not in columns)
        outcome = Outcome(
            output=output,
            rejects=rejects_path(output) if counts.rejects else None,
            report=report_path(output) if config.report else None,
            manifest=manifest_path(output),
            counts=counts,
            ignored=job.sources.ignored,
            written=job.sources.written,
            unreported=tuple(missing) if config.report and counts.documents else (),
            columns=columns,
            resumed=resumed,
            scored=scored,
            seconds=time.monotonic() - began,
        )
        with journal.whole_file(outcome.manifest) as stream:
            stream.write(f"{json.dumps(_manifest(job, outcome), indent=2)}\n".encode())
        journal.remove()
    return outcome


def absolute_output(output: str) -> Path:
    """Return an output's path with links followed.

    Raises:
        UserError: the links lead in a circle.
    """
    try:
        return Path(output).resolve()
    except RuntimeError as error:
        raise UserError(f"output: {output}: symbolic links lead in a circle") from error


def rejects_path(output: Path) -> Path:
    """Return where the rejects of an output lie."""
    return output.with_name(f"{output.name}{REJECTS}")


def report_path(output: Path) -> Path:
    """Return where the report on an output lies."""
    return output.with_name(f"{output.name}{REPORT}")


def manifest_path(output: Path) -> Path:
    """Return where the manifest of an output lies."""
    return output.with_name(f"{output.name}{MANIFEST}")


def layout_of(config: PredictConfig) -> Layout:
    """Return how the config says that records are read."""
    return Layout(
        text=config.text_column,
        id=config.id_column,
        longest=config.longest_record,
        tsv_quotes=config.tsv_quotes,
    )


def settings_of(config: PredictConfig) -> Settings:
    """Return how the config says that text is cut and labels are decided."""
    return Settings(config.unit, config.operating_point)


def describe(config: PredictConfig, directory: Path | None) -> ModelDescription:
    """Verify the model and hold that it knows the operating point."""
    model = describe_model(directory or Path(config.model_dir))
    model.decision.thresholds(config.operating_point)
    return model


def model_name(model: ModelDescription) -> str:
    """Return the name and digest by which predictions say who made them."""
    return f"{model.name}@{model.digest[:12]}"


def read_windows(sources: Sources, layout: Layout, size: int) -> Iterator[Window]:
    """Read the input in windows of `size` characters.

    Raises:
        UserError: the input is a single text and cannot be read.
    """
    meter = Meter()
    single = len(sources.files) == 1 and sources.files[0].format == "txt"
    for window in windows_of(read_documents(sources.files, layout, meter), meter, size):
        if single and window.rejects:
            raise UserError(f"{sources.files[0].path}: {window.rejects[0].reason}")
        yield window


def carried_columns(
    sources: Sources, layout: Layout, *, fixed: bool
) -> tuple[list[str], dict[str, Any]]:
    """Return the columns that go along with the predictions, and Arrow types where they have one.

    Args:
        sources: the input files.
        layout: how they are read.
        fixed: whether the output has the same columns in all records; then JSON Lines, which
            need not, are looked through for all that they have.

    Raises:
        UserError: a table lacks the text column, or a column's type differs between files.
    """
    names: dict[str, None] = {}
    types: dict[str, Any] = {}
    for source in sources.files:
        try:
            columns = columns_of(source, layout)
        except DamagedSource as error:
            if len(sources.files) == 1:
                raise UserError(f"{source.path}: {error}") from error
            continue
        if fixed and source.format == "jsonl":
            for record in read_documents([source], layout):
                if isinstance(record, Document):
                    columns.update(dict.fromkeys(record.fields))
        for name, type_ in columns.items():
            if name in names and types.get(name) != type_:
                raise UserError(
                    f"{source.path}: the column {name!r} is {type_ or 'text'} here and "
                    f"{types.get(name) or 'text'} in another file; score them one by one"
                )
            names[name] = None
            if type_ is not None:
                types[name] = type_
    return list(names), types


def _check_output(config: PredictConfig) -> Path:
    """Hold that the output and what lies beside it can be files; return its absolute path."""
    output = absolute_output(str(config.output))
    check_suffix(output)
    for path in (output, rejects_path(output), manifest_path(output)):
        try:
            folder = path.is_dir()
        except OSError as error:
            raise UserError(f"output: {path}: cannot be written: {error.strerror}") from error
        if folder:
            raise UserError(f"output: {path}: a folder, where a file is to be written")
    return output


def _prepare(config: PredictConfig, output: Path, journal: Journal, directory: Path | None) -> _Job:
    layout = layout_of(config)
    if config.input == STANDARD_INPUT:
        sources = spool_standard_input(config.input_format, journal.folder / SPOOL)
    else:
        own = (output, rejects_path(output), report_path(output), manifest_path(output))
        sources = find_sources(config.input, skip=own)
    if any(source.path.resolve() == output for source in sources.files):
        raise UserError(f"output: {output}: this is the input")
    fixed = output.suffix.lower() != ".jsonl"
    names, types = carried_columns(sources, layout, fixed=fixed)
    model = describe(config, directory)
    columns = Columns(
        model.codebook, model_name(model), carried_names(names, model.codebook), types
    )
    form = output_format(output, columns, defuse=config.defuse_formulas)
    if config.cascade:
        check_first_stage(model.directory)
    engine = choose_engine(model.kind, model.directory, config.engine)
    return _Job(config, sources, layout, model, engine, form)


def _key(job: _Job) -> dict[str, Any]:
    """Return what decides the output's bytes: windows of a job with another key are no use."""
    settings = asdict(job.config)
    for name in ("input", "output", "model_dir", "workers", "spark"):
        del settings[name]
    settings["engine"] = job.engine
    return {
        "input": job.sources.digest,
        "model": job.model.digest,
        "settings": settings,
        "versions": library_versions(),
    }


def _score(job: _Job, journal: Journal) -> int:
    """Score the windows that are not finished; return the number of their sentences."""
    sentences = 0
    with progress(job.sources.bytes) as advance:
        for window, scored in _scored(job, journal):
            note = asdict(_counts(window, scored, job.model))
            note["rejected"] = [asdict(reject) for reject in window.rejects]
            if job.config.report:
                note["report"] = _report_note(window, scored, job)
            journal.finish(window.number, job.format.piece(window.documents, scored), note)
            sentences += int(scored.counts.sum())
            advance(window.read, sentences)
    return sentences


def _scored(job: _Job, journal: Journal) -> Iterator[tuple[Window, Scored]]:
    """Score windows, in processes of their own unless the whole input is a single one.

    How many threads compute a window must not depend on what an earlier run had finished.
    """
    config, settings = job.config, settings_of(job.config)
    windows = read_windows(job.sources, job.layout, config.window_size)
    head = [window for window in (next(windows, None), next(windows, None)) if window]
    if len(head) == 1:
        if not journal.has(0):
            model = load_described(job.model, job.engine, cascade=config.cascade)
            texts = [document.text for document in head[0].documents]
            yield head[0], score_texts(model, texts, settings)
        return
    pending = (window for window in chain(head, windows) if not journal.has(window.number))
    task = Task(job.model.directory, job.engine, config.cascade, job.model.digest, settings)
    workers = config.workers or len(os.sched_getaffinity(0))
    yield from score_in_parallel(pending, task, workers)


def _counts(window: Window, scored: Scored, model: ModelDescription) -> Counts:
    return Counts(
        documents=len(window.documents),
        sentences=int(scored.counts.sum()),
        rejects=len(window.rejects),
        not_utf8=sum(reject.reason.endswith(SAVE_AS_UTF8) for reject in window.rejects),
        blank=window.blank,
        windowed=int((scored.windows > 1).sum()),
        settled=int((scored.windows == 0).sum()),
        uncertain=int(scored.uncertain.sum()),
        labels=label_counts(scored, model.codebook),
    )


def _report_note(window: Window, scored: Scored, job: _Job) -> dict[str, Any]:
    shown = window.number < _WINDOWS_SHOWN
    codebook = job.model.codebook
    return {
        "fragment": fragment(window.documents, scored, codebook) if shown else "",
        "tally": tally(window.documents, scored, _report_by(job.config)),
        "columns": columns_seen(window.documents),
    }


def _report_by(config: PredictConfig) -> Sequence[str]:
    return _REPORT_BY if config.report_by is None else config.report_by


def _write(job: _Job, journal: Journal) -> tuple[Counts, tuple[str, ...]]:
    """Put rejects, report and output in their places.

    Returns:
        The counts over all windows, and the input columns that the report has seen.
    """
    counts = Counts(labels=dict.fromkeys(job.model.codebook.names, 0))
    rejects = rejects_path(journal.output)
    with journal.whole_file(rejects) as stream:
        for note in journal.notes():
            counts.add(Counts(**{name: note[name] for name in asdict(counts)}))
            for reject in note["rejected"]:
                stream.write(f"{json.dumps(reject, ensure_ascii=False)}\n".encode())
    if not counts.rejects:
        rejects.unlink()
    columns = _write_report(job, journal, counts) if job.config.report else ()
    with journal.whole_file(journal.output) as stream:
        job.format.join(journal.pieces(), stream)
    return counts, columns


def _write_report(job: _Job, journal: Journal, counts: Counts) -> tuple[str, ...]:
    tallies: dict[str, Tally] = {}
    seen: dict[str, None] = {}
    sizes = []
    for note in journal.notes():
        merge(tallies, note["report"]["tally"])
        seen.update(dict.fromkeys(note["report"]["columns"]))
        sizes.append(note["sentences"])
    windows, shown = fit(sizes[:_WINDOWS_SHOWN])
    parts = page(
        title=f"{counts.sentences:,} sentences of {counts.documents:,} documents",
        subtitle=f"{printable(job.config.input)}, labelled by {model_name(job.model)}",
        codebook=job.model.codebook,
        sentences=counts.sentences,
        shown=shown,
        labels=counts.labels,
        tallies={column: values for column, values in tallies.items() if column in seen},
        fragments=(note["report"]["fragment"] for note in islice(journal.notes(), windows)),
    )
    with journal.whole_file(report_path(journal.output)) as stream:
        stream.writelines(part.encode() for part in parts)
    return tuple(seen)


def _manifest(job: _Job, outcome: Outcome) -> dict[str, Any]:
    with outcome.output.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "output": {"path": outcome.output.name, "sha256": digest},
        "rejects": outcome.rejects.name if outcome.rejects else None,
        "report": outcome.report.name if outcome.report else None,
        "input": {
            "path": job.config.input,
            "files": len(job.sources.files),
            "ignored": list(outcome.ignored),
            "written": list(outcome.written),
            "bytes": job.sources.bytes,
            "digest": job.sources.digest,
        },
        "model": model_facts(job.model, job.config.model_dir, job.engine),
        "settings": asdict(job.config),
        "counts": asdict(outcome.counts),
        "this_run": {
            "seconds": round(outcome.seconds, 3),
            "sentences": outcome.scored,
            "sentences_per_second": round(outcome.scored / outcome.seconds, 1),
            "windows_taken_up": outcome.resumed,
        },
        "versions": library_versions(),
    }


def model_facts(model: ModelDescription, named: str, engine: str) -> dict[str, str]:
    """Return what a manifest says of a model, which the user named `named`."""
    return {
        "path": named,
        "name": model.name,
        "kind": model.kind,
        "engine": engine,
        "digest": model.digest,
        "codebook": f"{model.codebook.name} {model.codebook.version}",
    }


def library_versions() -> dict[str, str]:
    """Return the versions of what decides a prediction."""
    versions = {"stance": stance.__version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
