"""Measure the labelling wing: labels saved by the queue, the label model on gold, speed, memory.

    python benchmarks/labelling.py queue --rate 0.125
    python benchmarks/labelling.py voters --gold data/stance/test.jsonl --model models/tfidf-seed1
    python benchmarks/labelling.py near --sizes 10000 100000 1000000
    python benchmarks/labelling.py articles --count 10000

`queue` plays an annotator whose answers are the labels of the pool: it asks for batches in the
queue's order and in random order, trains the TF-IDF baseline after each, and says how many labels
each order needs to reach a macro F1 on the gold files. `--rate` thins out the pool's labelled
sentences, for news at large holds fewer than our corpus. `near` and `articles` use made-up
sentences of a few thousand words, a tenth of them copies with a word changed.
"""

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score

from stance.classifiers.tfidf import TfidfClassifier
from stance.codebook import Codebook, read_codebook
from stance.corpus.examples import Split, read_split
from stance.corpus.near import near_pairs
from stance.decision import fit_decision
from stance.evaluation.metrics import PRIMARY, interval, point_scores
from stance.labelling.agreement import alpha
from stance.labelling.queue import Wishes, choose
from stance.labelling.voters import CueVoters, model_voter, suggest
from stance.model import StanceModel, load_model

ROOT = Path(__file__).parent.parent
CUE_WORDS = ["condemned", "threatened", "mediate", "retaliation", "warned", "denounced", "talks"]


Curves = dict[str, list[float]]
"""Macro F1 after each batch, by gold file."""


def subset(pool: Split, rows: Sequence[int]) -> Split:
    return Split("labelled", tuple(pool.examples[row] for row in rows), pool.codebook)


def thinned(pool: Split, rate: float) -> Split:
    """Leave out labelled sentences at random until their share is `rate`."""
    positive = pool.gold.any(axis=1)
    wanted = round(rate / (1 - rate) * int((~positive).sum()))
    kept = np.random.default_rng(0).permutation(np.flatnonzero(positive))[:wanted]
    return subset(pool, sorted([*np.flatnonzero(~positive).tolist(), *kept.tolist()]))


def learning_curve(
    pool: Split,
    validation: Split,
    golds: Sequence[Split],
    order: str,
    batch: int,
    rounds: int,
    seed: int,
) -> Curves:
    """Return the macro F1 after each batch; the first batch is random in both orders.

    Calibration and thresholds are fitted on `validation` as in training: a threshold of one half
    would flatter whichever order finds more positives.
    """
    shuffled = np.random.default_rng(seed).permutation(len(pool)).tolist()
    labelled, left = shuffled[:batch], shuffled[batch:]
    cues = CueVoters(pool.codebook).vote(pool.texts)
    curves: Curves = {gold.name: [] for gold in golds}
    for _ in range(rounds):
        classifier = TfidfClassifier(pool.codebook, cues=False, seed=seed)
        train = subset(pool, labelled)
        classifier.fit(train, train, lambda metrics, step: None)
        raw = classifier.predict_proba(validation.texts)
        decision = fit_decision(raw, validation.gold, validation.groups, pool.codebook)
        model = StanceModel("simulated", classifier, decision, pool.codebook)
        for gold in golds:
            curves[gold.name].append(point_scores(model.judge(gold))[PRIMARY])
        picked = set(range(batch))
        if order == "queue":
            texts = subset(pool, left).texts
            own = model_voter(model).vote(texts)
            ruled = replace(cues, votes=cues.votes[left])
            split = suggest([ruled, own], pool.codebook).disagreement
            scored, thresholds = own.probabilities, decision.thresholds()
            assert scored is not None
            chosen = choose(texts, scored, thresholds, split, Wishes(batch, seed=seed))
            picked = {pick.position for pick in chosen}
        labelled = labelled + [left[place] for place in sorted(picked)]
        left = [row for place, row in enumerate(left) if place not in picked]
    return curves


def labels_to_reach(curve: Sequence[float], batch: int, wanted: float) -> float:
    """Return the number of labels at which a curve first reaches a score, between its points."""
    for number, value in enumerate(curve):
        if value >= wanted:
            before = curve[number - 1] if number else 0.0
            return batch * (number + (wanted - before) / max(value - before, 1e-9))
    return float("nan")


def queue(arguments: argparse.Namespace, codebook: Codebook) -> None:
    pool = read_split(arguments.pool, "pool", codebook)
    pool = thinned(pool, arguments.rate) if arguments.rate else pool
    share = pool.gold.any(axis=1).mean()
    print(f"pool: {len(pool)} sentences, {share:.0%} labelled", flush=True)
    validation = read_split(arguments.validation, "validation", codebook)
    golds = [read_split(path, path.stem, codebook) for path in arguments.gold]
    batch, rounds = arguments.batch, arguments.rounds
    runs: dict[str, list[Curves]] = {"random": [], "queue": []}
    for seed in range(arguments.seeds):
        for order, curves in runs.items():
            found = learning_curve(pool, validation, golds, order, batch, rounds, seed)
            curves.append(found)
            for name, curve in found.items():
                shown = " ".join(f"{value:.3f}" for value in curve)
                print(f"seed {seed}, {order} order, macro F1 on {name}: {shown}", flush=True)
    for gold in golds:
        curve_of = {order: [c[gold.name] for c in curves] for order, curves in runs.items()}
        print(f"\n{gold.name}: macro F1\nlabels{'random':>26}{'queue':>26}{'difference':>26}")
        for number in range(rounds):
            random_, queue_ = (np.array([c[number] for c in curve_of[o]]) for o in runs)
            cells = [mean_and_interval(v) for v in (random_, queue_, queue_ - random_)]
            print(f"{batch * (number + 1):6}" + "".join(f"{cell:>26}" for cell in cells))
        means_at = [float(np.mean(scores)) for scores in zip(*curve_of["random"], strict=True)]
        for wanted in sorted(means_at[1:-1]):
            needed = {
                o: np.array([labels_to_reach(c, batch, wanted) for c in curve_of[o]]) for o in runs
            }
            saved = 1 - needed["queue"] / needed["random"]
            both = saved[~np.isnan(saved)]
            if len(both):
                means = ", ".join(f"{o} {np.nanmean(v):.0f}" for o, v in needed.items())
                print(
                    f"macro F1 {wanted:.3f}: labels needed: {means}; "
                    f"saved {mean_and_interval(both)} "
                    f"({len(both)} of {arguments.seeds} seeds reach it in both orders)"
                )


def mean_and_interval(values: np.ndarray) -> str:
    """Return the mean over seeds with its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(axis=1)
    found = interval(float(values.mean()), draws)
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def voters(arguments: argparse.Namespace, codebook: Codebook) -> None:
    for path in arguments.gold:
        voters_on(read_split(path, path.stem, codebook), arguments.model)


def voters_on(gold: Split, model: Path | None) -> None:
    codebook = gold.codebook
    ballots = {"cue rules": CueVoters(codebook).vote(gold.texts)}
    if model:
        ballots[model.name] = model_voter(load_model(model)).vote(gold.texts)
    sides = {name: [ballot] for name, ballot in ballots.items()}
    sides["label model over all"] = list(ballots.values())
    for name, side in sides.items():
        predicted = (suggest(side, codebook).probabilities >= 0.5).astype(np.int8)
        alphas = [
            alpha(np.stack([gold.gold[:, column], predicted[:, column]], axis=1))
            for column in range(len(codebook.names))
        ]
        together = alpha(np.stack([gold.gold.ravel(), predicted.ravel()], axis=1))
        shown = ", ".join(f"{n} {a:.3f}" for n, a in zip(codebook.names, alphas, strict=True))
        f1 = f1_score(gold.gold, predicted, average="macro", zero_division=0)
        print(f"{gold.name}, {name}: alpha {together:.3f} ({shown}), macro F1 {f1:.3f}")


def made_up(count: int, seed: int = 0) -> list[str]:
    """Return sentences of a few thousand words, a tenth of them copies with one word changed."""
    source = random.Random(seed)
    words = [
        "".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randint(3, 9)))
        for _ in range(6000)
    ] + CUE_WORDS * 5
    weights = [1 / (rank + 10) for rank in range(len(words))]
    texts: list[str] = []
    while len(texts) < count:
        if texts and source.random() < 0.1:
            copied = source.choice(texts).split()
            copied[source.randrange(len(copied) - 1)] = source.choice(words)
            texts.append(" ".join(copied))
        else:
            body = " ".join(source.choices(words, weights, k=source.randint(8, 32)))
            texts.append(f"{body.capitalize()}.")
    return texts


def near(arguments: argparse.Namespace, codebook: Codebook) -> None:
    for size in arguments.sizes:
        texts = made_up(size)
        started = time.perf_counter()
        found = len(near_pairs(texts))
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        per = seconds / (size * np.log2(size)) * 1e6
        print(
            f"{size:>9,} sentences: {seconds:7.1f} s, {found:,} pairs, "
            f"{per:.2f} us / (n log2 n), peak memory {peak:,.0f} MB"
        )


def articles(arguments: argparse.Namespace, codebook: Codebook) -> None:
    texts = made_up(arguments.count * 25)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "articles").mkdir()
        for number in range(arguments.count):
            body = " ".join(texts[number * 25 : number * 25 + 25])
            (folder / "articles" / f"{number:05}.txt").write_text(body, encoding="utf-8")
        command = [sys.executable, str(ROOT / "label.py"), f"input={folder / 'articles'}"]
        command += [f"output={folder / 'queue.jsonl'}"]
        command += [f"model={arguments.model}"] if arguments.model else []
        started = time.perf_counter()
        subprocess.run(command, check=True, cwd=ROOT)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{arguments.count:,} articles: {seconds:.0f} s, peak memory {peak:,.0f} MB")


def main() -> None:
    warnings.filterwarnings("ignore", message="Label not")  # a rare one, in the first batch
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("what", choices=["queue", "voters", "near", "articles"])
    parser.add_argument("--codebook", type=Path, default=ROOT / "conf/codebook/stance.yaml")
    parser.add_argument("--pool", type=Path, default=ROOT / "data/stance/train.jsonl")
    parser.add_argument("--gold", type=Path, nargs="+", default=[ROOT / "data/stance/test.jsonl"])
    parser.add_argument("--validation", type=Path, default=ROOT / "data/stance/validation.jsonl")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rate", type=float, help="share of labelled sentences in the pool")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--count", type=int, default=10_000)
    arguments = parser.parse_args()
    codebook = read_codebook(arguments.codebook)
    measures = {"queue": queue, "voters": voters, "near": near, "articles": articles}
    measures[arguments.what](arguments, codebook)


if __name__ == "__main__":
    main()
