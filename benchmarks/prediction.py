"""How fast sentences are labelled, at what memory, and what speed costs in agreement.

    python benchmarks/prediction.py part=engines model=models/champion baseline=models/tfidf-seed1
    python benchmarks/prediction.py part=growth model=models/champion sizes=[1000,10000,100000]

`engines` scores the same sentences with `transformers.pipeline`, each engine, the cascade and a
baseline. Each stands ready in processes of its own and they take turns, round after round, because
identical runs on one machine differ; only ratios within a run mean something. `growth` runs whole
jobs, from a file to a file, on more and more sentences; what is outside the engine is the processor
time of reading, splitting, writing and joining.
"""

import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from stance.codebook import Codebook
from stance.corpus.examples import Split, read_split
from stance.evaluation.metrics import PRIMARY, Judged, interval, point_scores, resampled_scores
from stance.model import describe_model, load_model
from stance.text.sentences import split_sentences

DEFAULTS = {
    "part": "engines",
    "model": "models/champion",
    "baseline": "",
    "data": ["data/stance/validation.jsonl", "data/stance/test.jsonl"],
    "rounds": 5,
    "sentences": 600,
    "carrying": 0.1,
    "sizes": [1_000, 10_000, 100_000],
    "engine": "auto",
    "cascade": False,
}
CORES = len(os.sched_getaffinity(0))
REFERENCE = "transformers.pipeline, batch 32"


@dataclass(frozen=True)
class Contender:
    """A way to score sentences, in `processes` of `threads` threads each."""

    name: str
    model: str
    engine: str = "auto"
    cascade: bool = False
    pipeline_batch: int = 0
    processes: int = 1
    threads: int = CORES


def contenders(model: str, baseline: str) -> list[Contender]:
    each = {"processes": CORES, "threads": 1}
    found = [
        Contender("transformers.pipeline, batch 1", model, pipeline_batch=1),
        Contender(REFERENCE, model, pipeline_batch=32),
        Contender("torch", model, "torch", **each),
        Contender(f"torch, one process of {CORES} threads", model, "torch"),
        Contender("onnx", model, "onnx", **each),
        Contender("onnx_int8", model, "onnx_int8", **each),
        Contender(f"onnx_int8, one process of {CORES} threads", model, "onnx_int8"),
        Contender("onnx_int8 with cascade", model, "onnx_int8", cascade=True, **each),
    ]
    return found + ([Contender("baseline", baseline, **each)] if baseline else [])


def serve(pipe: Any, contender: Contender) -> None:
    """Load a contender, then answer each list of sentences with scores and seconds.

    What a scorer leaves to be called afterwards is not timed.
    """
    scorer = pipeline_scorer(contender) if contender.pipeline_batch else scorer_of(contender)
    pipe.send(None)
    while (texts := pipe.recv()) is not None:
        began = time.perf_counter()
        answer = scorer(texts)
        seconds = time.perf_counter() - began
        pipe.send((answer() if callable(answer) else answer, seconds))
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def scorer_of(contender: Contender) -> Any:
    return load_model(Path(contender.model), contender.engine, cascade=contender.cascade).score


def pipeline_scorer(contender: Contender) -> Any:
    """Let `transformers.pipeline` score what the classifier would score itself."""
    from transformers import logging, pipeline
    from transformers.modeling_outputs import SequenceClassifierOutput

    logging.set_verbosity(51)  # it lists every class that it knows, at level 50
    model = load_model(Path(contender.model))
    classifier: Any = model.classifier
    base = type(classifier.model)

    class MeanPooled(base):  # type: ignore[misc, valid-type]
        def forward(self, input_ids: Any, attention_mask: Any, **others: Any) -> Any:
            found = super().forward(input_ids=input_ids, attention_mask=attention_mask, **others)
            mask = attention_mask.unsqueeze(-1)
            return SequenceClassifierOutput(logits=(found.logits * mask).sum(1) / mask.sum(1))

    classifier.model.__class__ = MeanPooled
    run = pipeline(
        "text-classification",
        model=classifier.model,
        tokenizer=classifier.tokenizer,
        function_to_apply="sigmoid" if model.codebook.multi_label else "softmax",
        top_k=None,
        batch_size=contender.pipeline_batch,
    )
    names = model.codebook.names

    def score(texts: Sequence[str]) -> Any:
        answers = run(classifier.prepare(texts), truncation=True, max_length=classifier.max_length)

        def finish() -> tuple[Any, Any]:
            rows = [{answer["label"]: answer["score"] for answer in row} for row in answers]
            raw = np.array([[row[name] for name in names] for row in rows])
            whole = replace(classifier.encoder, max_length=10**6).windows(texts)
            joined = whole.joined(raw, multi_label=model.codebook.multi_label)
            return model.decision.calibrate(joined), whole.counts

        return finish

    return score


class Crew:
    """The processes of one contender, loaded and waiting."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        context = multiprocessing.get_context("spawn")
        os.environ["OMP_NUM_THREADS"] = str(contender.threads)
        self.pipes = []
        for _ in range(contender.processes):
            ours, theirs = context.Pipe()
            context.Process(target=serve, args=(theirs, contender), daemon=True).start()
            self.pipes.append(ours)
        for pipe in self.pipes:
            pipe.recv()
        del os.environ["OMP_NUM_THREADS"]

    def score(self, texts: Sequence[str]) -> tuple[Any, Any, float]:
        """Return scores, windows, and sentences a second."""
        shares = [list(texts[number :: len(self.pipes)]) for number in range(len(self.pipes))]
        for pipe, share in zip(self.pipes, shares, strict=True):
            pipe.send(share)
        replies = [pipe.recv() for pipe in self.pipes]
        seconds = max(seconds for _, seconds in replies)
        scores = np.empty((len(texts), replies[0][0][0].shape[1]))
        windows = np.empty(len(texts), dtype=np.int64)
        for number, ((share_scores, share_windows), _) in enumerate(replies):
            scores[number :: len(self.pipes)] = share_scores
            windows[number :: len(self.pipes)] = share_windows
        return scores, windows, len(texts) / seconds

    def close(self) -> float:
        """End the processes and return the memory that they took at most, in MB."""
        for pipe in self.pipes:
            pipe.send(None)
        return sum(pipe.recv() for pipe in self.pipes)


def compare_engines(options: Any) -> None:
    description = describe_model(Path(options.model))
    labelled = read_labelled(options.data, description.codebook)
    natural = at_rate(labelled, options.carrying, options.sentences)
    print(f"{len(natural)} sentences, {options.carrying:.0%} with a label; {options.rounds} rounds")
    crews = [Crew(c) for c in contenders(options.model, options.baseline)]
    rates: dict[str, list[float]] = {crew.contender.name: [] for crew in crews}
    for _ in range(options.rounds):
        for crew in crews:
            rates[crew.contender.name].append(crew.score(natural)[2])
    judged = {crew.contender.name: judge(crew, labelled, description) for crew in crews}
    fp32 = judged["torch"]
    print(
        f"| engine | sentences/s | times {REFERENCE} | peak MB | macro F1 of {len(labelled)} "
        "| change from torch | same label sets |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for crew in crews:
        name = crew.contender.name
        ratios = sorted(a / b for a, b in zip(rates[name], rates[REFERENCE], strict=True))
        same = (judged[name].predicted == fp32.predicted).all(axis=1).mean()
        print(
            f"| {name} | {statistics.median(rates[name]):,.0f} | {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}) | {crew.close():,.0f} "
            f"| {point_scores(judged[name])[PRIMARY]:.3f} | {change(fp32, judged[name])} "
            f"| {same:.2%} |",
            flush=True,
        )


def read_labelled(paths: Sequence[str], codebook: Codebook) -> Split:
    splits = [read_split(Path(path), "labelled", codebook) for path in paths]
    return Split("labelled", tuple(e for split in splits for e in split.examples), codebook)


def at_rate(split: Split, carrying: float, count: int) -> list[str]:
    """Draw at most `count` sentences, each once, so that a share of them carries a label."""
    generator = np.random.default_rng(0)
    carries = split.gold.any(axis=1)
    wanted = round(count * carrying), count - round(count * carrying)
    rows = [
        generator.permutation(np.flatnonzero(which))[:number]
        for which, number in zip((carries, ~carries), wanted, strict=True)
    ]
    few = min(len(rows[0]) / max(carrying, 1e-9), len(rows[1]) / max(1 - carrying, 1e-9))
    kept = [rows[0][: int(few * carrying)], rows[1][: int(few * (1 - carrying))]]
    return [split.texts[row] for row in generator.permutation(np.concatenate(kept))]


def judge(crew: Crew, split: Split, description: Any) -> Judged:
    scores, windows, _ = crew.score(split.texts)
    predicted = description.decision.decide(scores) * (windows > 0)[:, None]
    return Judged(split.gold, scores, predicted, split.groups, split.codebook.names)


def change(before: Judged, after: Judged) -> str:
    value = point_scores(after)[PRIMARY] - point_scores(before)[PRIMARY]
    drawn = [resampled_scores(j, resamples=2000, seed=0)[PRIMARY] for j in (before, after)]
    found = interval(value, drawn[1] - drawn[0])
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


JOB = """
import json, resource, sys
from stance.config import PredictConfig
from stance.prediction.batch import predict
if __name__ == "__main__":
    outcome = predict(PredictConfig(**json.loads(sys.argv[1])))
    own, others = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({"seconds": outcome.seconds, "sentences": outcome.counts.sentences,
        "own": own.ru_utime + own.ru_stime, "workers": others.ru_utime + others.ru_stime}))
"""


def measure_growth(options: Any) -> None:
    from hydra import compose, initialize_config_dir

    from stance.config import register_schemas

    register_schemas()
    with initialize_config_dir(str(Path("conf").resolve()), version_base="1.3"):
        settings: Any = OmegaConf.to_container(compose("predict", overrides=["input=unused"]))
    description = describe_model(Path(options.model))
    texts = at_rate(read_labelled(options.data, description.codebook), options.carrying, 10_000)
    print("| sentences | seconds | sentences/s | peak MB, all processes | outside the engine |")
    print("|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job.py").write_text(JOB)
        for size in options.sizes:
            source = write_articles(Path(folder) / "in.jsonl", texts, size)
            job = {
                **settings,
                "input": str(source),
                "output": f"{folder}/out.jsonl",
                "model_dir": str(Path(options.model).resolve()),
                "engine": options.engine,
                "cascade": options.cascade,
            }
            report, peak = run_job([sys.executable, f"{folder}/job.py", json.dumps(job)])
            rate = report["sentences"] / report["seconds"]
            outside = report["own"] + splitting_seconds(source)
            apart = report["workers"] > 0.5  # a job of one window has no workers to part it from
            share = f"{outside / (report['own'] + report['workers']):.1%}" if apart else ""
            print(
                f"| {report['sentences']:,} | {report['seconds']:,.1f} | {rate:,.0f} | {peak:,.0f} "
                f"| {share} |",
                flush=True,
            )


def splitting_seconds(source: Path) -> float:
    """Return what splitting into sentences takes, which workers do beside the engine's work."""
    began = time.process_time()
    with source.open(encoding="utf-8") as stream:
        for line in stream:
            for _ in split_sentences(json.loads(line)["text"]):
                pass
    return time.process_time() - began


def write_articles(path: Path, texts: Sequence[str], size: int) -> Path:
    """Write articles of ten sentences; a number in each keeps sentences from being the same."""
    with path.open("w", encoding="utf-8") as stream:
        for start in range(0, size, 10):
            sentences = [
                f"{texts[n % len(texts)].rstrip('.!?')} ({n})." for n in range(start, start + 10)
            ]
            stream.write(json.dumps({"text": "\n".join(sentences), "day": f"0{start}"}) + "\n")
    return path


def run_job(command: Sequence[str]) -> tuple[Any, float]:
    """Run a job and return its report and the most memory that all its processes held at once."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(map(memory, family(process.pid))))
        time.sleep(0.2)
    output = process.stdout.read() if process.stdout else ""
    return json.loads(output), peak


def family(process: int) -> list[int]:
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [process, *(member for child in children for member in family(int(child)))]


def memory(process: int) -> float:
    """Return the megabytes that a process holds; shared pages count by their share."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def main() -> None:
    options: Any = OmegaConf.merge(DEFAULTS, OmegaConf.from_cli())
    {"engines": compare_engines, "growth": measure_growth}[options.part](options)


if __name__ == "__main__":
    main()
