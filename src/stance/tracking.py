"""Record runs. Only this module (and the pyfunc that registered models carry) imports MLflow.

With tracking set to `none` a silent run takes the place of the real one and everything else stays
the same. Weights have one home, `models/`; MLflow gets parameters, metrics, pictures and small
tables. If tracking cannot start, the run fails; if one point cannot be logged, it warns.
"""

import contextlib
import fcntl
import getpass
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import yaml

from stance.config import TrackingConfig
from stance.errors import UserError

logger = logging.getLogger(__name__)

Scalar = str | int | float | bool

KIND = "stance.kind"
"""Tag by which the runs of an experiment are told apart: train, sweep, compare, promote."""

_ABOUT = (
    "Runs of the stance classifiers. Filter by kind with `tags.stance.kind = 'train'` (also "
    "`sweep`, `compare`, `promote`). Metrics are `<split>/<score>`; `f1_macro` is the one that "
    "runs are compared by, its interval stands beside it as `/low` and `/high`. `behaviour/...` "
    "are shares of test sentences kept, by construct and by rule of the codebook."
)

_PROCESS_TAG = "stance.process"
_SWEEP_TAG = "stance.sweep"


@dataclass(frozen=True)
class Store:
    """Where runs are recorded: `kind` is `mlflow` or `none`; an empty `uri` is local SQLite."""

    kind: str
    uri: str
    experiment: str
    models_dir: Path


@dataclass(frozen=True)
class DataSource:
    """A labelled file as MLflow shows it: name, files, SHA-256 digest, number of rows, role."""

    name: str
    source: str
    digest: str
    rows: int
    context: str


class Run(Protocol):
    """What a script may tell about its run."""

    id: str
    address: str

    def log_parameters(self, parameters: Mapping[str, Scalar]) -> None:
        """Record settings; a value once logged cannot change."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record flat scalar metrics at a step."""

    def log_text(self, text: str, path: str) -> None:
        """Record a small text file as an artifact."""

    def log_table(self, rows: Mapping[str, list[Any]], path: str) -> None:
        """Record columns as a table that can be compared across runs."""

    def log_figure(self, figure: Any, path: str) -> None:
        """Record a matplotlib figure as a picture."""

    def log_data(self, data: DataSource) -> None:
        """Record a labelled file as an input of the run."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record facts about the run that are no settings."""

    def describe(self, text: str) -> None:
        """Record in Markdown what the run is or found, to be read first."""


@dataclass
class SilentRun:
    """The stand-in when tracking is off: takes everything, records nothing."""

    id: str = ""
    address: str = ""

    def log_parameters(self, parameters: Mapping[str, Scalar]) -> None:
        """Take and forget."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Take and forget."""

    def log_text(self, text: str, path: str) -> None:
        """Take and forget."""

    def log_table(self, rows: Mapping[str, list[Any]], path: str) -> None:
        """Take and forget."""

    def log_figure(self, figure: Any, path: str) -> None:
        """Take and forget."""

    def log_data(self, data: DataSource) -> None:
        """Take and forget."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Take and forget."""

    def describe(self, text: str) -> None:
        """Take and forget."""


@dataclass
class MlflowRun:
    """A run in an MLflow store."""

    id: str
    address: str
    client: Any
    tables: set[str] = field(default_factory=set)
    warned: set[str] = field(default_factory=set)

    def log_parameters(self, parameters: Mapping[str, Scalar]) -> None:
        """Record settings in one batch."""
        from mlflow.entities import Param

        params = [Param(key, str(value)) for key, value in parameters.items()]
        self._try("parameters", lambda: self.client.log_batch(self.id, params=params))

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record scalars in batches: one by one, a thousand take forty times as long."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(key, float(value), now, step) for key, value in metrics.items()]
        for start in range(0, len(points), 900):
            batch = points[start : start + 900]
            self._try("metrics", lambda batch=batch: self.client.log_batch(self.id, metrics=batch))

    def log_text(self, text: str, path: str) -> None:
        """Record a small text file."""
        self._try(path, lambda: self.client.log_text(self.id, text, path))

    def log_table(self, rows: Mapping[str, list[Any]], path: str) -> None:
        """Record columns as a table in place of what stood at `path`.

        MLflow's own `log_table` appends to a table that exists, which would repeat the rows of a
        summary that is written anew after each run of a sweep.
        """
        import pandas as pd

        table = pd.DataFrame(dict(rows)).to_json(orient="split", index=False, date_format="iso")
        self._try(path, lambda: self.client.log_text(self.id, table, path))
        self.tables.add(path)
        shown = [{"path": table, "type": "table"} for table in sorted(self.tables)]
        self.set_tags({"mlflow.loggedArtifacts": json.dumps(shown)})

    def log_figure(self, figure: Any, path: str) -> None:
        """Record a picture."""
        self._try(path, lambda: self.client.log_figure(self.id, figure, path))

    def log_data(self, data: DataSource) -> None:
        """Record a labelled file as a dataset input; MLflow cuts digests at 36 characters."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=data.name,
            digest=data.digest[:36],
            source_type="local",
            source=json.dumps({"uri": data.source}),
            profile=f'{{"rows": {data.rows}, "sha256": "{data.digest}"}}',
        )
        inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", data.context)])]
        self._try(data.name, lambda: self.client.log_inputs(self.id, inputs))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags in one batch."""
        from mlflow.entities import RunTag

        entries = [RunTag(key, value) for key, value in tags.items()]
        self._try("tags", lambda: self.client.log_batch(self.id, tags=entries))

    def describe(self, text: str) -> None:
        """Record the note that the UI shows at the top of the run."""
        self.set_tags({"mlflow.note.content": text})

    def end(self, status: str) -> None:
        """Record that the run is over."""
        self._try("the run's end", lambda: self.client.set_terminated(self.id, status))

    def _try(self, what: str, action: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            action()
        except (MlflowException, OSError) as error:
            if what not in self.warned:
                reason = without_password(" ".join(str(error).split()))[:200]
                logger.warning("not recorded in MLflow: %s: %s", what, reason)
            self.warned.add(what)


def open_store(tracking: TrackingConfig, models_dir: str) -> Store:
    """Return the store that a config describes."""
    return Store(tracking.kind, tracking.uri, tracking.experiment, Path(models_dir))


@contextlib.contextmanager
def start_run(
    store: Store, name: str, *, tags: Mapping[str, str] | None = None, parent: str | None = None
) -> Iterator[Run]:
    """Open a run, and end it as what it was: FINISHED, FAILED by an exception, or KILLED.

    Args:
        store: where to record it.
        name: the run's name.
        tags: facts to record from the start.
        parent: id of the run that this one belongs to.

    Raises:
        UserError: the store cannot be reached or made.
    """
    if store.kind == "none":
        yield SilentRun()
        return
    links = {"mlflow.parentRunId": parent} if parent else {}
    client, address = _connect(store)
    with _usable(store):
        experiment_id = _experiment(client, store)
        _close_dead_runs(client, experiment_id)
        run = client.create_run(
            experiment_id,
            run_name=name,
            tags={_PROCESS_TAG: _this_process(), **_origin(), **links, **(tags or {})},
        )
    record = MlflowRun(run.info.run_id, _page(address, experiment_id, run.info.run_id), client)
    status = "FAILED"
    try:
        with _terminate_as_interrupt():
            yield record
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        record.end(status)


@contextlib.contextmanager
def start_run_if_possible(store: Store, name: str, tags: Mapping[str, str]) -> Iterator[Run]:
    """Open a run; where the store is away, warn once and go on with one that records nothing."""
    with contextlib.ExitStack() as stack:
        try:
            run = stack.enter_context(start_run(store, name, tags=tags))
        except UserError as error:
            logger.warning("%s; going on without it", error)
            run = SilentRun()
        yield run


def sweep_parent(store: Store, sweep: str) -> str | None:
    """Find or make the run that stands above the runs of one sweep, and return its id.

    The jobs of a sweep may be processes of their own: they know each other by the sweep's name.

    Raises:
        UserError: the store cannot be reached or made.
    """
    if store.kind == "none":
        return None
    client, _ = _connect(store)
    quote = '"' if "'" in sweep else "'"  # MLflow's filters know no escape
    with _usable(store):
        experiment_id = _experiment(client, store)
    with _usable(store), _lock(store.models_dir):
        found = client.search_runs([experiment_id], f"tags.`{_SWEEP_TAG}` = {quote}{sweep}{quote}")
        if found:
            return str(found[0].info.run_id)
        tags = {_SWEEP_TAG: sweep, KIND: "sweep", **_origin()}
        name = Path(sweep).name.removesuffix("_sweep")
        parent = client.create_run(experiment_id, run_name=f"sweep {name}", tags=tags)
        client.set_terminated(parent.info.run_id)
        return str(parent.info.run_id)


@dataclass(frozen=True)
class Child:
    """A finished run of a sweep: its id, name, parameters and scalar metrics."""

    id: str
    name: str
    parameters: dict[str, str]
    metrics: dict[str, float]


def sweep_children(store: Store, parent: str) -> list[Child]:
    """Return the finished runs of a sweep, oldest first.

    Raises:
        UserError: the store cannot be reached.
    """
    client, _ = _connect(store)
    with _usable(store):
        experiment_id = client.get_run(parent).info.experiment_id
        runs = client.search_runs(
            [experiment_id],
            f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'FINISHED'",
            order_by=["attributes.start_time ASC"],
        )
    return [
        Child(r.info.run_id, r.info.run_name, dict(r.data.params), dict(r.data.metrics))
        for r in runs
    ]


def reopen_run(store: Store, run: str) -> Run:
    """Return an ended run, to record in it what was found later.

    A run that this store does not have, or a store that is away, records nothing: the model was
    trained elsewhere.
    """
    if store.kind == "none" or not run:
        return SilentRun()
    from mlflow.exceptions import MlflowException

    client, address = _connect(store)
    try:
        found = client.get_run(run)
    except (MlflowException, OSError):
        return SilentRun()
    shown = json.loads(found.data.tags.get("mlflow.loggedArtifacts", "[]"))
    return MlflowRun(
        run,
        _page(address, found.info.experiment_id, run),
        client,
        {table["path"] for table in shown},
    )


def register_model(
    store: Store,
    run: Run,
    directory: Path,
    *,
    name: str,
    alias: str,
    labels: Sequence[str],
    description: str,
    tags: Mapping[str, str],
) -> str:
    """Register a saved model as the next version of `name`, give it an alias, return its number.

    The version carries the model's files, this package's code and a pyfunc, with a signature and
    an example, so that `mlflow models serve` and `spark_udf` work without this checkout.

    Raises:
        UserError: the registry does not take it.
    """
    client, _ = _connect(store)
    import mlflow
    import pandas as pd
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    package = Path(__file__).parent
    outputs = [*(ColSpec("double", f"p_{label}") for label in labels)]
    signature = ModelSignature(
        Schema([ColSpec("string", "text")]),
        Schema([*outputs, ColSpec("string", "labels"), ColSpec("boolean", "uncertain")]),
        ParamSchema([ParamSpec("operating_point", "string", "")]),
    )
    try:
        with mlflow.start_run(run_id=run.id):
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(package / "serving.py"),
                artifacts={"model": str(directory.resolve())},
                code_paths=[str(package)],
                signature=signature,
                input_example=pd.DataFrame({"text": ["The ministry condemned the attack."]}),
                pip_requirements=serving_requirements(),
            )
        version = mlflow.register_model(info.model_uri, name, tags=dict(tags))
        client.update_model_version(name, version.version, description)
        client.set_registered_model_alias(name, alias, version.version)
    except (MlflowException, OSError) as error:
        reason = without_password(" ".join(str(error).split()))[:300]
        raise UserError(f"{directory}: not registered as {name!r}: {reason}") from error
    return str(version.version)


def fetch_model(store: Store, where: str, folder: Path) -> Path:
    """Fetch the files of a registered model into a folder and return the saved model in it.

    MLflow only carries the files: nothing of them is loaded or run here.

    Args:
        store: whose registry is asked.
        where: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/RUN/NAME`.
        folder: an empty folder.

    Raises:
        UserError: it cannot be fetched, or is no model that was registered here.
    """
    if not store.uri and not (store.models_dir / "mlflow.db").exists():
        raise UserError(
            f"model: {where}: no registry at {store.models_dir / 'mlflow.db'}; MLFLOW_TRACKING_URI "
            f"names another"
        )
    _connect(store)
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        root = Path(download_artifacts(artifact_uri=where, dst_path=str(folder))).resolve()
    except (MlflowException, OSError) as error:
        reason = without_password(" ".join(str(error).split()))[:300]
        raise UserError(f"model: {where}: cannot be fetched: {reason}") from error
    try:
        described = yaml.safe_load((root / "MLmodel").read_text(encoding="utf-8"))
        named = described["flavors"]["python_function"]["artifacts"]["model"]["path"]
        directory = (root / str(named)).resolve()
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"model: {where}: not a model that this project registered") from error
    if not directory.is_relative_to(root):
        raise UserError(f"model: {where}: its files lie outside of it, at {named}")
    return directory


def serving_requirements() -> list[str]:
    """Return what a served model needs, at the versions installed here."""
    from importlib import metadata

    packages = ("numpy", "pandas", "scikit-learn", "scipy", "skops", "torch", "transformers")
    return [
        f"{name}=={metadata.version(name).partition('+')[0]}"
        for name in (*packages, "PyYAML", "hydra-core", "mlflow")
    ]


def code_version() -> dict[str, str]:
    """Return the git commit of this checkout as a tag, marked when files differ from it."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", here, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"mlflow.source.git.commit": commit, "stance.uncommitted_changes": str(bool(changed))}


def _origin() -> dict[str, str]:
    """Return as tags what MLflow shows as source and author of a run."""
    try:
        author = {"mlflow.user": getpass.getuser()}
    except (KeyError, OSError):  # a container without a name for its user
        author = {}
    script = {"mlflow.source.name": Path(sys.argv[0]).name, "mlflow.source.type": "LOCAL"}
    return {**script, **author, **code_version()}


def without_password(text: str) -> str:
    """Hide the user part of every URI in a text."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1***@", text)


def _connect(store: Store) -> tuple[Any, str]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # what it repeats ends in an error
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it raises them, too
    local = f"sqlite:///{(store.models_dir / 'mlflow.db').resolve()}"
    with _usable(store):
        mlflow.set_tracking_uri(store.uri or local)
        return mlflow.MlflowClient(), store.uri or "http://127.0.0.1:5000/"


@contextlib.contextmanager
def _usable(store: Store) -> Iterator[None]:
    """Turn what MLflow raises at a store that is away, read-only or of no known kind."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError, ImportError, ValueError) as error:
        reason = without_password(" ".join(str(error).split()))[:300]
        where = without_password(store.uri) or str(store.models_dir / "mlflow.db")
        if store.uri and "://" not in store.uri:
            where += " (expected http://HOST:PORT or sqlite:///FILE)"
        raise UserError(f"tracking.uri: MLflow cannot start at {where}: {reason}") from error


def _page(address: str, experiment_id: str, run: str) -> str:
    """Return where a run is shown, in the view for training rather than that for agents."""
    where = f"#/experiments/{experiment_id}/runs/{run}?workflowType=machine_learning"
    return f"{without_password(address).rstrip('/')}/{where}"


def _experiment(client: Any, store: Store) -> str:
    """Find or make the experiment under a lock: processes crash each other on a fresh store."""
    artifacts = None if store.uri else (store.models_dir / "mlruns").resolve().as_uri()
    name = store.experiment
    with _lock(store.models_dir):
        found = client.get_experiment_by_name(name)
        if found is None:
            about = {
                "mlflow.note.content": _ABOUT,
                "mlflow.experimentKind": "custom_model_development",
            }
            return str(client.create_experiment(name, artifacts, tags=about))
        if found.lifecycle_stage != "active":
            raise UserError(f"tracking.experiment: {name!r} is deleted in MLflow; restore it")
        if artifacts and found.artifact_location.rstrip("/") != artifacts:
            logger.warning(
                "%s: MLflow made it elsewhere and keeps pictures, tables and registered models "
                "in %s",
                store.models_dir / "mlflow.db",
                found.artifact_location,
            )
        return str(found.experiment_id)


@contextlib.contextmanager
def _lock(models_dir: Path) -> Iterator[None]:
    models_dir.mkdir(parents=True, exist_ok=True)
    with (models_dir / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _close_dead_runs(client: Any, experiment_id: str) -> None:
    """End the runs of processes of this machine that were killed before they could."""
    running = client.search_runs([experiment_id], "attributes.status = 'RUNNING'")
    for run in running:
        host, _, process = run.data.tags.get(_PROCESS_TAG, "").rpartition(":")
        if host == socket.gethostname() and not _alive(int(process)):
            client.set_terminated(run.info.run_id, "KILLED")


def _this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does; signals reach only the main thread."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
