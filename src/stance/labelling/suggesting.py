"""From raw articles to a queue of sentences, each with a suggestion and its evidence."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stance.classifiers.engines import AUTO
from stance.codebook import Codebook
from stance.config import LabelConfig, columns_of
from stance.corpus.examples import read_split, sentence_key
from stance.corpus.near import copies
from stance.errors import UserError
from stance.labelling.checking import splits_of
from stance.labelling.files import paths_of, write_rows
from stance.labelling.queue import Wishes, choose
from stance.labelling.tasks import Task, write_queue
from stance.labelling.voters import (
    EVEN,
    CueVoters,
    ScoringVoter,
    Suggestions,
    Voter,
    model_voter,
    suggest,
)
from stance.model import StanceModel, load_model
from stance.text import documents
from stance.text.documents import Document, Layout, Reject
from stance.text.sentences import split_sentences
from stance.text.sources import DamagedSource, find_sources


@dataclass(frozen=True)
class Pool:
    """All sentences of the input, and the positions of those that are worth asking.

    `places` holds document id, number within the document, start and end of each sentence;
    `documents` the `sentence_key` of each document's text by its id.
    """

    texts: list[str]
    places: list[tuple[str, int, int, int]]
    kept: list[int]
    documents: dict[str, str]
    duplicates: int
    near_duplicates: int
    rejects: list[Reject]

    @property
    def kept_texts(self) -> list[str]:
        """The sentences that are worth asking."""
        return [self.texts[position] for position in self.kept]


@dataclass(frozen=True)
class Queued:
    """What became of the articles."""

    pool: Pool
    tasks: list[Task]
    output: Path


def make_queue(config: LabelConfig) -> Queued:
    """Split articles, drop copies, let the voters vote, choose, and write the queue.

    Raises:
        UserError: the input, the corpus, a model or a setting cannot be used, or the output stands
            there already.
    """
    output = Path(config.output or "queue.jsonl")
    if output.exists():
        raise UserError(f"output: {output}: stands there already and is not overwritten")
    codebook = Codebook.from_mapping(config.codebook, "codebook")
    model = read_model(config, codebook)
    voters = build_voters(config, codebook, model)
    pool = read_pool(config, codebook)
    texts = pool.kept_texts
    suggestions = suggest([voter.vote(texts) for voter in voters], codebook)
    probabilities, thresholds = _decisive(suggestions, model)
    chosen = choose(
        texts,
        probabilities,
        thresholds,
        suggestions.disagreement,
        Wishes(
            budget=config.choose.budget,
            random_share=config.choose.random_share,
            uncertainty=config.choose.uncertainty,
            disagreement=config.choose.disagreement,
            rarity=config.choose.rarity,
            diversity=config.choose.diversity,
            seed=config.seed,
        ),
    )
    rows = [pick.position for pick in chosen]
    evidence = [voter.evidence([texts[row] for row in rows]) for voter in voters]
    label_sets = suggestions.label_sets
    tasks = []
    for number, pick in enumerate(chosen):
        row, position = pick.position, pool.kept[pick.position]
        document, sentence, start, end = pool.places[position]
        shown = zip(codebook.names, suggestions.probabilities[row].tolist(), strict=True)
        tasks.append(
            Task(
                id=f"{document}#{sentence}",
                text=pool.texts[position],
                before=_neighbour(pool, position, -1),
                after=_neighbour(pool, position, 1),
                document_id=document,
                document_key=pool.documents[document],
                sentence=sentence,
                start=start,
                end=end,
                suggested=label_sets[row],
                probabilities={name: round(p, 4) for name, p in shown},
                evidence=[item for said in evidence for item in said[number]],
                chosen_for=pick.reason,
            )
        )
    if not tasks:
        left_out = "".join(f"; {r.source}: {r.reason}" for r in pool.rejects[:1])
        raise UserError(f"input: {config.input}: no new sentence in these articles{left_out}")
    write_queue(output, tasks)
    if pool.rejects:
        write_rows(output.with_name(f"{output.name}.rejects.jsonl"), _rejected(pool.rejects))
    return Queued(pool, tasks, output)


def read_pool(config: LabelConfig, codebook: Codebook) -> Pool:
    """Read articles into sentences, without copies of each other and of the corpus."""
    known = _corpus_texts(config, codebook)
    texts: list[str] = []
    places: list[tuple[str, int, int, int]] = []
    rejects: list[Reject] = []
    fresh: list[int] = []
    seen = {sentence_key(text) for text in known}
    keys: dict[str, str] = {}
    for record in _records(config):
        if isinstance(record, Reject):
            rejects.append(record)
            continue
        if record.id in keys:
            rejects.append(Reject(record.id, None, record.id, "its id came before"))
            continue
        keys[record.id] = sentence_key(record.text)
        for number, sentence in enumerate(split_sentences(record.text)):
            key = sentence_key(sentence.text)
            if key not in seen:
                seen.add(key)
                fresh.append(len(texts))
            texts.append(sentence.text)
            places.append((record.id, number, sentence.start, sentence.end))
    copied = copies([*known, *(texts[position] for position in fresh)], config.choose.near)
    kept = [p for row, p in enumerate(fresh, start=len(known)) if row not in copied]
    return Pool(
        texts=texts,
        places=places,
        kept=kept,
        documents=keys,
        duplicates=len(texts) - len(fresh),
        near_duplicates=len(fresh) - len(kept),
        rejects=rejects,
    )


def print_queued(queued: Queued) -> None:
    """Say what became of the articles, and what to do next."""
    pool, reasons = queued.pool, Counter(task.chosen_for for task in queued.tasks)
    print(
        f"articles: {len(pool.documents):,}, sentences {len(pool.texts):,}: {len(pool.kept):,} new,"
    )
    print(f"          {pool.duplicates:,} duplicates, {pool.near_duplicates:,} near-duplicates")
    if pool.rejects:
        print(f"rejects:  {queued.output}.rejects.jsonl ({len(pool.rejects):,} records)")
    shown = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    print(f"queue:    {queued.output}: {len(queued.tasks)} sentences ({shown})")
    print(f"next:     python label.py queue={queued.output} output=ANSWERS.jsonl serve=true")
    print("          annotator=NAME, or format=label_studio instead of serve=true")


def read_model(config: LabelConfig, codebook: Codebook) -> StanceModel | None:
    """Load the model that votes, if there is one.

    Raises:
        UserError: it cannot be loaded, or labels by other names.
    """
    if not config.model_dir:
        return None
    model = load_model(Path(config.model_dir), AUTO)
    if model.codebook.names != codebook.names:
        names = ", ".join(model.codebook.names)
        raise UserError(f"model: {config.model_dir} labels {names}, other than the codebook")
    return model


def build_voters(config: LabelConfig, codebook: Codebook, model: StanceModel | None) -> list[Voter]:
    """Gather who votes: the cue rules, the model, the entailment model."""
    voters: list[Voter] = [CueVoters(codebook)]
    if model is not None:
        voters.append(model_voter(model))
    entailment = config.entailment
    if entailment.checkpoint:
        from stance.labelling.entailment import EntailmentScorer

        scorer = EntailmentScorer(
            codebook,
            checkpoint=entailment.checkpoint,
            revision=entailment.revision,
            batch_size=entailment.batch_size,
        )
        low, high = (
            np.full(len(codebook.names), limit) for limit in (entailment.reject, entailment.accept)
        )
        voters.append(ScoringVoter("entailment", codebook, scorer, low=low, high=high))
    return voters


def _decisive(
    suggestions: Suggestions, model: StanceModel | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the probabilities whose nearness to thresholds is doubt: the model's, if any."""
    if model is None or not model.codebook.multi_label:
        return suggestions.probabilities, np.full(suggestions.probabilities.shape[1], EVEN)
    scored = next(b.probabilities for b in suggestions.ballots if b.probabilities is not None)
    return scored, model.decision.thresholds()


def _corpus_texts(config: LabelConfig, codebook: Codebook) -> list[str]:
    """Return the sentences that are labelled already: of the data config, and of `base`."""
    files = [path for paths in splits_of(config.data).values() for path in paths]
    files += paths_of("base", config.base)
    columns = columns_of(config.data)
    return [text for path in files for text in read_split(path, "known", codebook, columns).texts]


def _records(config: LabelConfig) -> Iterator[Document | Reject]:
    sources = find_sources(config.input or "")
    layout = Layout(
        text=config.text_column,
        id=config.id_column,
        longest=config.longest_record,
        tsv_quotes=config.tsv_quotes,
    )
    for source in sources.files:
        with contextlib.suppress(DamagedSource):  # reading says what is wrong with it
            documents.columns_of(source, layout)
    for record in documents.read_documents(sources.files, layout):
        if not isinstance(record, documents.Blank):
            yield record


def _neighbour(pool: Pool, position: int, step: int) -> str:
    """Return the sentence before or after another in its document, or an empty text."""
    other = position + step
    if 0 <= other < len(pool.texts) and pool.places[other][0] == pool.places[position][0]:
        return pool.texts[other]
    return ""


def _rejected(rejects: Sequence[Reject]) -> Iterator[dict[str, Any]]:
    for reject in rejects:
        yield {
            "source": reject.source,
            "row": reject.row,
            "id": reject.id,
            "reason": reject.reason,
        }
