"""Where the models fall short on a labelled file: by label, stratum and kind of error.

    python benchmarks/accuracy.py data=FILE models=[models/rules-seed1,models/minilm-seed1]
    python benchmarks/accuracy.py data=FILE curve=[1000,2000,4000] model=tfidf seeds=[1,2,3]

Without `models`, every model under models/ is judged. Models that differ only in their seed are
pooled: mean and standard deviation over seeds. A file may carry a field `stratum`. With `curve`,
classifiers are trained on growing parts of the training corpus, whole documents at a time.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stance.classifiers.build import build_classifier
from stance.codebook import Codebook
from stance.comparison import compare
from stance.config import TrainConfig, read_config, register_schemas
from stance.corpus.examples import Split, read_split
from stance.cues import CueMatcher
from stance.decision import fit_decision
from stance.errors import UserError
from stance.evaluation.behaviour import read_suite
from stance.evaluation.metrics import PRIMARY, Judged, point_scores, score
from stance.model import StanceModel, load_model
from stance.training import read_splits

DEFAULTS = {
    "data": "???",
    "models": [],
    "points": ["max_f1", "precision@0.9", "recall@0.95"],
    "curve": [],
    "model": "tfidf",
    "seeds": [1],
    "resamples": 1000,
    "behaviour": "data/behaviour",
}

COUNTRIES = (
    "Argentina|Bolivia|Brazil|Bulgaria|Cambodia|Canada|Chile|China|Colombia|Croatia|Cuba|Cyprus|"
    "Egypt|Ethiopia|France|Germany|Greece|Honduras|Hungary|India|Indonesia|Iran|Iraq|Israel|"
    "Italy|Japan|Jordan|Kenya|Kuwait|Lebanon|Libya|Malaysia|Mexico|Morocco|Nicaragua|Nigeria|"
    "Pakistan|Peru|Poland|Qatar|Russia|Rwanda|Serbia|Somalia|Sudan|Syria|Thailand|Tunisia|"
    "Turkey|Uganda|Ukraine|Venezuela|Vietnam|Yemen|Zimbabwe"
)
COUNTRY = re.compile(rf"\b(?:{COUNTRIES})\b", re.IGNORECASE)
"""Names that can stand in for one another in most sentences of news."""


def main() -> None:
    options: Any = OmegaConf.merge(DEFAULTS, OmegaConf.from_cli())
    if options.curve:
        learning_curve(options)
        return
    paths = [Path(p) for p in options.models] or [
        p.parent
        for p in sorted(Path("models").glob("*/manifest.json"))
        if not p.parent.is_symlink()
    ]
    models = {path.name: load_model(path) for path in paths}
    codebook = next(iter(models.values())).codebook
    split = read_split(Path(options.data), "data", codebook)
    judged = {name: model.judge(split) for name, model in models.items()}
    print_scores(judged, options.resamples)
    print_seeds(judged)
    print_strata(models, split, options)
    print_errors(judged, split, codebook)
    print_invariance(models, split, options.behaviour)
    print_comparisons(judged, options)


def print_scores(judged: dict[str, Judged], resamples: int) -> None:
    for name, j in judged.items():
        scores = score(j, resamples=resamples)
        print(f"\n{name}: macro F1 {scores[PRIMARY]}, ece {scores['ece_macro']}")
        for label in j.names:
            cells = [f"{m} {scores[f'{m}/{label}']}" for m in ("precision", "recall", "f1")]
            print(f"  {label:14} {'  '.join(cells)}")


def print_seeds(judged: dict[str, Judged]) -> None:
    families: dict[str, list[dict[str, float]]] = {}
    for name, j in judged.items():
        families.setdefault(re.sub(r"-seed\d+$", "", name), []).append(point_scores(j))
    print("\nmean and standard deviation over seeds")
    for family, scores in families.items():
        keys = [PRIMARY, *(k for k in scores[0] if k.startswith("f1/"))]
        cells = [
            f"{k.removeprefix('f1/')} {np.mean([s[k] for s in scores]):.3f}"
            f" ({np.std([s[k] for s in scores], ddof=min(1, len(scores) - 1)):.3f})"
            for k in keys
        ]
        print(f"  {family} x {len(scores)}: {', '.join(cells)}")


def print_strata(models: dict[str, StanceModel], split: Split, options: Any) -> None:
    strata = sorted({str(e.metadata.get("stratum", "")) for e in split.examples} - {""})
    for stratum in strata:
        rows = tuple(e for e in split.examples if e.metadata.get("stratum") == stratum)
        part = Split(stratum, rows, split.codebook)
        positive = int(part.gold.any(axis=1).sum())
        print(f"\nstratum {stratum}: {len(part)} sentences, {positive} with a label")
        for name, model in models.items():
            for point in options.points:
                try:
                    j = model.judge(part, point)
                except UserError as error:
                    print(f"  {name} at {point}: {error}")
                    continue
                s = score(j, resamples=options.resamples)
                any_gold, any_said = j.gold.any(axis=1), j.predicted.any(axis=1)
                print(
                    f"  {name} at {point}: micro precision {s['precision_micro']} "
                    f"recall {s['recall_micro']}; sentences flagged {int(any_said.sum())}, "
                    f"rightly {int((any_gold & any_said).sum())}"
                )


def print_errors(judged: dict[str, Judged], split: Split, codebook: Codebook) -> None:
    """Count errors by what the cue rules saw: words that mislead, words that are absent."""
    matcher = CueMatcher(codebook)
    cues = [matcher.find(text) for text in split.texts]
    for name, j in judged.items():
        kinds: Counter[str] = Counter()
        for row, column in np.argwhere(j.gold != j.predicted):
            own = [cue for cue in cues[row] if cue.label == j.names[column]]
            seen = (
                "no cue"
                if not own
                else "cue fired"
                if any(cue.blocked is None for cue in own)
                else f"cue blocked ({own[0].blocked})"
            )
            what = "missed" if j.gold[row, column] else "false alarm"
            kinds[f"{j.names[column]}: {what}, {seen}"] += 1
        print(f"\n{name}: {sum(kinds.values())} wrong labels")
        for kind, count in kinds.most_common():
            print(f"  {count:4} {kind}")


def print_invariance(models: dict[str, StanceModel], split: Split, suite: str) -> None:
    """Print how many label sets change when actors or capitals do, which should change none.

    Countries are exchanged for others in the sentences of the file that name some; the behaviour
    suite's sentences get other actors of every kind, each compared with the same sentence's first.
    One sentence at a threshold changes under several names, so sentences are counted too.
    """
    texts = list(split.texts)
    named = [text for text in texts if COUNTRY.search(text)]
    drawn = [
        case.texts
        for case in read_suite(Path(suite), split.codebook)
        if case.construct == "invariance-actors"
    ]
    changes = {
        "in capitals": [(text, text.upper()) for text in texts],
        "in lower case": [(text, text.lower()) for text in texts],
        "with other countries": [pair for text in named for pair in exchanged(text, rounds=5)],
        "suite's sentences with other actors": [(t[0], other) for t in drawn for other in t[1:]],
    }
    every = list(dict.fromkeys(text for pairs in changes.values() for p in pairs for text in p))
    for name, model in models.items():
        print(f"\n{name}: label sets that change")
        said = dict(zip(every, model.label(every)[1].tolist(), strict=True))
        for change, pairs in changes.items():
            changed = [before for before, after in pairs if said[before] != said[after]]
            share = len(changed) / len(pairs)
            sentences = f"{len(set(changed))} of {len({before for before, _ in pairs})} sentences"
            print(f"  {change}: {len(changed)} of {len(pairs)} ({share:.2%}), in {sentences}")


def exchanged(text: str, rounds: int) -> Iterator[tuple[str, str]]:
    """Pair a sentence with itself under other countries, each name replaced throughout."""
    generator = random.Random(text)
    own = sorted({match.group().title() for match in COUNTRY.finditer(text)})
    for _ in range(rounds):
        others = generator.sample([c for c in COUNTRIES.split("|") if c not in own], len(own))
        names = dict(zip(own, others, strict=True))
        yield text, COUNTRY.sub(lambda match, names=names: names[match.group().title()], text)


def print_comparisons(judged: dict[str, Judged], options: Any) -> None:
    if len(judged) < 2:
        return
    print()
    for d in compare(judged, options.data, options.resamples).differences:
        print(f"{d.second} - {d.first}: {d.difference}, p = {d.adjusted_p_value:.3f}: {d.verdict}")


def learning_curve(options: Any) -> None:
    register_schemas()
    with initialize_config_dir(str(Path("conf").resolve()), version_base="1.3"):
        config = read_config(compose("train", overrides=[f"model={options.model}"]), TrainConfig)
    codebook = Codebook.from_mapping(config.codebook)
    corpus = read_splits(config.data, codebook)
    target = read_split(Path(options.data), "data", codebook)
    for rows in options.curve:
        for seed in options.seeds:
            train = whole_documents(corpus["train"], rows, seed)
            classifier = build_classifier(config.model, codebook, seed)
            classifier.fit(train, corpus["validation"], lambda metrics, step: None)
            validation = corpus["validation"]
            raw = classifier.predict_proba(validation.texts)
            decision = fit_decision(raw, validation.gold, validation.groups, codebook)
            model = StanceModel("curve", classifier, decision, codebook)
            value = score(model.judge(target), resamples=options.resamples)[PRIMARY]
            print(
                f"{options.model} seed {seed}, {len(train)} sentences: macro F1 {value}", flush=True
            )


def whole_documents(split: Split, rows: int, seed: int) -> Split:
    """Return about `rows` sentences, as whole groups drawn at random."""
    groups = np.random.default_rng(seed).permutation(sorted(set(split.groups)))
    sizes = Counter(split.groups)
    taken: set[str] = set()
    count = 0
    for group in groups:
        if count >= rows:
            break
        taken.add(str(group))
        count += sizes[str(group)]
    return Split("train", tuple(e for e in split.examples if e.group in taken), split.codebook)


if __name__ == "__main__":
    main()
