"""A page to label in, for those who will not install anything: one process, one browser tab.

It listens on 127.0.0.1 only, answers only to that name, and takes answers only as JSON, so that no
other page in the same browser can write them.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, jsonify, request
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from stance.codebook import NONE, Codebook
from stance.config import LabelConfig
from stance.errors import UserError
from stance.labelling.formats import choices_of
from stance.labelling.journal import Journal
from stance.labelling.tasks import Task, read_queue

HOST = "127.0.0.1"
_PAGE = Path(__file__).with_name("page.html")
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
)


class _Quiet(WSGIRequestHandler):
    """Keeps the terminal to the lines that say where to look: no line for each key pressed."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


def serve(config: LabelConfig) -> None:
    """Open the page and wait until it is stopped with Ctrl-C.

    Raises:
        UserError: a setting is missing, a file cannot be used, or the port is taken.
    """
    server, journal = open_page(config)
    print(f"label at http://{HOST}:{server.server_port}/ as {config.annotator}; Ctrl-C to stop")
    print(f"answers: {config.output}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        server.server_close()
        journal.close()
    print(
        f"\nstopped: {len(journal.standing)} answers in {config.output}; to go on, start it again"
    )
    print(f"next:    python label.py queue={config.queue} answers={config.output}")


def open_page(config: LabelConfig) -> tuple[BaseWSGIServer, Journal]:
    """Make the server, ready to serve, and the annotator's file of answers.

    Raises:
        UserError: a setting is missing, a file cannot be used, or the port is taken.
    """
    for key in ("queue", "output", "annotator"):
        if not getattr(config, key):
            raise UserError(f"{key}: the page needs it, as in {key}=...; see label.py --help")
    codebook = Codebook.from_mapping(config.codebook, "codebook")
    tasks = read_queue(Path(config.queue or ""), codebook)
    journal = Journal(Path(config.output or ""), config.annotator)
    try:
        # Browsers hold connections open that they do not use; one thread alone would wait for them.
        app = build_app(tasks, codebook, journal)
        server = make_server(HOST, config.port, app, threaded=True, request_handler=_Quiet)
    except (OSError, SystemExit) as error:  # werkzeug exits where a port is taken
        journal.close()
        raise UserError(f"port: {config.port} on {HOST} is taken; name another") from error
    return server, journal


def build_app(tasks: list[Task], codebook: Codebook, journal: Journal) -> Flask:
    """Return the application: the page, its state, an answer, an undoing."""
    app = Flask("stance.labelling", static_folder=None)
    by_id = {task.id: task for task in tasks}
    one_by_one = threading.Lock()

    @app.before_request
    def only_from_here() -> None:
        """Refuse other host names: a foreign page could point its own name to this machine."""
        if request.host.rpartition(":")[0] not in (HOST, "localhost"):
            abort(403)
        if request.method == "POST" and not request.is_json:
            abort(415)

    @app.after_request
    def with_policy(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["Cache-Control"] = "no-store"
        return response

    @app.get("/")
    def page() -> Response:
        return Response(_PAGE.read_text(encoding="utf-8"), mimetype="text/html")

    @app.get("/codebook")
    def meaning() -> Response:
        return jsonify(_meaning(codebook))

    @app.get("/task")
    def task() -> Response:
        with one_by_one:
            return jsonify(_state(tasks, journal, None))

    @app.post("/answer")
    def answer() -> Response | tuple[Response, int]:
        given = request.get_json()
        found = by_id.get(str(given.get("id"))) if isinstance(given, dict) else None
        labels: Any = given.get("labels") if found else []
        reason = _objection(labels, codebook)
        if found is None or reason:
            return jsonify({"error": reason if found else "no such sentence in this queue"}), 400
        with one_by_one:
            journal.answer(found, tuple(name for name in codebook.names if name in labels))
            return jsonify(_state(tasks, journal, None))

    @app.post("/undo")
    def undo() -> Response:
        with one_by_one:
            return jsonify(_state(tasks, journal, journal.undo()))

    return app


def _objection(labels: Any, codebook: Codebook) -> str:
    if not isinstance(labels, list) or any(label not in codebook.names for label in labels):
        return f"labels must be among {', '.join(codebook.names)}"
    if not codebook.multi_label and len(labels) != 1:
        return "choose exactly one label"
    return ""


def _state(tasks: list[Task], journal: Journal, back_at: str | None) -> Mapping[str, Any]:
    """Return what the page shows: progress and the task to answer, None when all is done."""
    answered = sum(task.id in journal.standing for task in tasks)
    current = next(
        (
            task
            for task in tasks
            if task.id == back_at or (back_at is None and task.id not in journal.standing)
        ),
        None,
    )
    shown = None
    if current:
        shown = {
            "id": current.id,
            "text": current.text,
            "before": current.before,
            "after": current.after,
            "suggested": current.suggested,
            "probabilities": current.probabilities,
            "evidence": current.evidence,
        }
    return {
        "annotator": journal.annotator,
        "answered": answered,
        "total": len(tasks),
        "can_undo": bool(journal.standing),
        "task": shown,
    }


def _meaning(codebook: Codebook) -> Mapping[str, Any]:
    return {
        "name": f"{codebook.name} {codebook.version}",
        "unit": codebook.unit,
        "multi_label": codebook.multi_label,
        "none": NONE,
        "choices": choices_of(codebook),
        "labels": [{"name": e.name, "definition": e.definition} for e in codebook.labels],
        "rules": [{"number": number, "text": text} for number, text in codebook.rules.items()],
    }
