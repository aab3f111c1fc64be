"""TF-IDF word and character n-grams with one-vs-rest logistic regression: the yardstick."""

import json
import re
import zipfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion

from stance.classifiers.base import Log, Probabilities
from stance.classifiers.explanations import Explanation
from stance.codebook import Codebook
from stance.corpus.examples import Split
from stance.cues import CueMatcher
from stance.errors import UserError
from stance.text.normalize import normalize

_WEIGHTS = "tfidf.skops"
_TYPES = {
    "builtins.dict",
    "builtins.list",
    "builtins.str",
    "builtins.tuple",
    "numpy.float64",
    "numpy.ndarray",
    "sklearn.feature_extraction.text.TfidfTransformer",
    "sklearn.feature_extraction.text.TfidfVectorizer",
    "sklearn.linear_model._logistic.LogisticRegression",
    "sklearn.multiclass.OneVsRestClassifier",
    "sklearn.pipeline.FeatureUnion",
    "sklearn.preprocessing._label.LabelBinarizer",
}
"""What a saved model is made of; skops itself would let more types of scikit-learn through."""
_SETTINGS = "tfidf.json"


class TfidfClassifier:
    """Logistic regression on n-grams and, where the codebook has them, cue rules.

    Args:
        codebook: the label scheme.
        word_ngrams: longest word n-gram.
        char_ngrams: longest character n-gram within word bounds; 0 for none.
        min_df: n-grams in fewer training sentences than this are dropped.
        C: inverse strength of the L2 penalty.
        class_weight: `balanced` or None, as in scikit-learn.
        cues: whether fired and blocked cue rules are features beside the n-grams.
        cue_weight: value of a cue feature that is on (n-gram vectors have length one).
        seed: seed of the solver.
    """

    kind: ClassVar[str] = "tfidf"

    def __init__(
        self,
        codebook: Codebook,
        *,
        word_ngrams: int = 2,
        char_ngrams: int = 5,
        min_df: int = 2,
        C: float = 4.0,
        class_weight: str | None = None,
        cues: bool = True,
        cue_weight: float = 0.5,
        seed: int = 1,
    ) -> None:
        """Keep the settings; nothing is learnt yet."""
        self.codebook = codebook
        self.cues = cues
        self.cue_weight = cue_weight
        parts = [
            (
                "word",
                TfidfVectorizer(
                    ngram_range=(1, word_ngrams), min_df=min_df, sublinear_tf=True, lowercase=True
                ),
            )
        ]
        if char_ngrams:
            parts.append(
                (
                    "char",
                    TfidfVectorizer(
                        analyzer="char_wb",
                        ngram_range=(2, char_ngrams),
                        min_df=min_df,
                        sublinear_tf=True,
                    ),
                )
            )
        self.vectorizer = FeatureUnion(parts)
        self.regression = OneVsRestClassifier(
            LogisticRegression(C=C, class_weight=class_weight, max_iter=2000, random_state=seed)
        )
        self._matcher = CueMatcher(codebook) if cues else None

    def fit(self, train: Split, validation: Split, log: Log) -> None:
        """Learn n-gram weights from `train`; nothing is stopped early, `validation` is unused.

        Raises:
            UserError: no n-gram stands in `min_df` training sentences.
        """
        try:
            self.vectorizer.fit([normalize(text) for text in train.texts])
        except ValueError as error:  # of an empty vocabulary: sentences are strings by then
            min_df = self.vectorizer.get_params()["word__min_df"]
            raise UserError(
                f"model.min_df={min_df}: there are too few n-grams that stand in so many of "
                f"the {len(train)} training sentences; lower it"
            ) from error
        self.regression.fit(self.features(train.texts), train.gold)

    def features(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Return the feature matrix, shape (n, features): n-grams, then cue rules."""
        cleaned = [normalize(text) for text in texts]
        ngrams = self.vectorizer.transform(cleaned)
        if self._matcher is None:
            return ngrams
        fired = sparse.csr_matrix(self._matcher.features(cleaned) * self.cue_weight)
        return sparse.hstack([ngrams, fired], format="csr")

    @property
    def feature_names(self) -> list[str]:
        """Names of the columns of `features`."""
        names = [str(name) for name in self.vectorizer.get_feature_names_out()]
        return names + (list(self._matcher.feature_names) if self._matcher else [])

    def predict_proba(self, texts: Sequence[str]) -> Probabilities:
        """Return the probability of every label for every sentence, shape (n, labels)."""
        if not texts:
            return np.empty((0, len(self.codebook.names)))
        return _label_probabilities(self.regression, self.features(texts))

    def explain(self, text: str, label: str) -> Explanation:
        """Give each word its share of the label's log odds, exactly.

        The weighted value of an n-gram is shared by the words that it lies in; cue rules that fire
        or are blocked and the intercept follow the words.
        """
        cleaned = normalize(text)
        estimator = self.regression.estimators_[self.codebook.names.index(label)]
        added = self.features([text]).multiply(estimator.coef_[0]).tocsr()
        names = self.feature_names
        shares = dict(zip((names[i] for i in added.indices), added.data, strict=True))
        words = list(re.finditer(r"\S+", cleaned))
        totals = np.zeros(len(words))
        places: dict[str, list[list[int]]] = {}
        for name, covered in _ngram_places(self.vectorizer, cleaned, words):
            if name in shares:
                places.setdefault(name, []).append(covered)
        for name, occurrences in places.items():
            for covered in occurrences:
                totals[covered] += shares[name] / len(occurrences) / len(covered)
        rest = [(f"[{name}]", float(share)) for name, share in shares.items() if name not in places]
        return [
            *((word.group(), float(total)) for word, total in zip(words, totals, strict=True)),
            *rest,
            ("[intercept]", float(estimator.intercept_[0])),
        ]

    def save(self, directory: Path) -> None:
        """Write the fitted estimators as skops and the settings as JSON."""
        import skops.io

        skops.io.dump(
            {"vectorizer": self.vectorizer, "regression": self.regression}, directory / _WEIGHTS
        )
        settings = {"cues": self.cues, "cue_weight": self.cue_weight}
        (directory / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, codebook: Codebook) -> "TfidfClassifier":
        """Read a classifier that `save` wrote; types that it does not write are refused."""
        import skops.io

        _hold_known_types(directory / _WEIGHTS)
        settings: dict[str, Any] = json.loads((directory / _SETTINGS).read_text(encoding="utf-8"))
        classifier = cls(codebook, **settings)
        estimators = skops.io.load(directory / _WEIGHTS, trusted=[])
        classifier.vectorizer = estimators["vectorizer"]
        classifier.regression = estimators["regression"]
        return classifier


def _hold_known_types(path: Path) -> None:
    """Hold that a skops file asks for no type but those that `save` writes.

    Raises:
        ValueError: it names another one, or is no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            nodes = [json.loads(archive.read("schema.json"))]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path.name} is no skops file") from error
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes += node
        elif isinstance(node, dict):
            kind = f"{node['__module__']}.{node['__class__']}" if "__class__" in node else None
            if kind is not None and kind not in _TYPES:
                raise ValueError(f"{path.name} asks for the type {kind}")
            nodes += node.values()


def _ngram_places(
    vectorizer: FeatureUnion, text: str, words: Sequence[re.Match[str]]
) -> Iterator[tuple[str, list[int]]]:
    """Yield every n-gram of a text under its feature's name, with the words that it lies in."""
    for part, vectors in vectorizer.transformer_list:
        shortest, longest = vectors.ngram_range
        if part == "char":
            analyze = vectors.build_analyzer()
            for number, word in enumerate(words):
                for ngram in analyze(word.group()):
                    yield f"{part}__{ngram}", [number]
            continue
        tokens = list(re.finditer(vectors.token_pattern, text.lower()))
        # Lower case can change a text's length; what begins past the last word belongs to it.
        ends = [word.end() for word in words]
        owners = [min(bisect_right(ends, token.start()), len(words) - 1) for token in tokens]
        for length in range(shortest, longest + 1):
            for start in range(len(tokens) - length + 1):
                ngram = " ".join(token.group() for token in tokens[start : start + length])
                yield f"{part}__{ngram}", sorted(set(owners[start : start + length]))


def _label_probabilities(regression: OneVsRestClassifier, features: Any) -> Probabilities:
    """Ask each label's own regression: no label competes with another here.

    `OneVsRestClassifier.predict_proba` would drop to one column for a two-label codebook.
    """
    columns = [estimator.predict_proba(features)[:, 1] for estimator in regression.estimators_]
    return np.column_stack(columns).astype(np.float64)
