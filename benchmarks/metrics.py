"""How long the scores of a large file take, with all their intervals.

    OMP_NUM_THREADS=1 python benchmarks/metrics.py

2,000 resamples of 10,000 rows with four labels, once with every row a document of its own (the
dearest case), once with ten rows a document.
"""

import time

import numpy as np

from stance.evaluation.metrics import Judged, score

ROWS, LABELS, RESAMPLES = 10_000, 4, 2000

generator = np.random.default_rng(0)
gold = (generator.random((ROWS, LABELS)) < 0.15).astype(np.int8)
probabilities = np.clip(0.4 * gold + 0.6 * generator.random((ROWS, LABELS)), 0, 1)
predicted = (probabilities > 0.5).astype(np.int8)
for size in (1, 10):
    groups = [str(row // size) for row in range(ROWS)]
    judged = Judged(gold, probabilities, predicted, groups, tuple("abcd"))
    start = time.perf_counter()
    scores = score(judged, resamples=RESAMPLES)
    seconds = time.perf_counter() - start
    print(f"{ROWS // size} documents: {len(scores)} scores, {seconds:.2f} s")
