"""A labelled file dealt into splits that share no group and no near-copy.

Groups that hold near-copies of each other's sentences count as one. They are dealt out whole, the
largest first, each to the split that lacks most of what it brings: of sentences, of every label and
of sentences without one, after the greedy rule of Sechidis, Tsoumakas and Vlahavas (2011), "On the
stratification of multi-label data".
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from stance.corpus.examples import Split, normal_form
from stance.corpus.near import THRESHOLD, near_pairs
from stance.errors import UserError


def deal(
    examples: Split, shares: Mapping[str, float], *, near: float = THRESHOLD, seed: int = 0
) -> dict[str, Split]:
    """Deal examples into splits, each in the order of the file.

    Args:
        examples: what is dealt.
        shares: the share of the sentences that each split is to hold; they add up to one.
        near: similarity (Jaccard of word pairs) from which two sentences must not be parted.
        seed: of the order of groups of one size.

    Raises:
        UserError: so few groups are there that a split would get none.
    """
    bundles = _bundles(examples, near)
    names = list(shares)
    brought = _brought(examples, bundles)
    target = np.outer(list(shares.values()), brought.sum(axis=0))
    scale = np.maximum(brought.sum(axis=0), 1) ** 2
    lacking = target.copy()
    split_of = np.zeros(len(brought), dtype=np.intp)
    order = np.random.default_rng(seed).permutation(len(brought))
    for bundle in order[np.argsort(-brought[order, 0], kind="stable")]:
        # The squared deviation from the target falls most where this product is greatest.
        split_of[bundle] = np.argmax((lacking * brought[bundle] / scale).sum(axis=1))
        lacking[split_of[bundle]] -= brought[bundle]
    for number, name in enumerate(names):
        if number not in split_of:
            raise UserError(
                f"{examples.name}: {len(brought)} groups are too few: none is left for {name!r}; "
                f"documents, and sentences that are nearly the same, stay together"
            )
    numbers = split_of[bundles]
    return {
        name: Split(
            name,
            tuple(e for e, n in zip(examples.examples, numbers, strict=True) if n == number),
            examples.codebook,
        )
        for number, name in enumerate(names)
    }


def _bundles(examples: Split, near: float) -> NDArray[np.intp]:
    """Number what must not be parted: the same number for each sentence of it, from 0 on."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = len(examples)
    links = [(pair.first, pair.second) for pair in near_pairs(examples.texts, near)]
    for keys in (examples.groups, [normal_form(text) for text in examples.texts]):
        first_of: dict[str, int] = {}
        links += [(row, first_of.setdefault(key, row)) for row, key in enumerate(keys)]
    ones, (first, second) = np.ones(len(links)), np.array(links).T
    graph = coo_array((ones, (first, second)), shape=(rows, rows))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)


def _brought(examples: Split, bundles: NDArray[np.intp]) -> NDArray[np.float64]:
    """Count what each bundle brings: sentences, each label, and sentences without a label."""
    gold = examples.gold
    each = np.column_stack([np.ones(len(gold)), gold, ~gold.any(axis=1)])
    brought = np.zeros((bundles.max() + 1, each.shape[1]))
    np.add.at(brought, bundles, each)
    return brought
