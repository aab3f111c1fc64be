"""What answers add to a base: sentences that it lacks, under ids and groups of their own.

An id is made of a file's name and numbers, and next week's dump has the name of last week's.
"""

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import replace

from stance.corpus.examples import Example, sentence_key

_DIGITS = 8


def additions(base: Sequence[Example], examples: Sequence[Example]) -> list[Example]:
    """Return the examples whose text the base lacks; an id or group it has for another is suffixed.

    The sentences of one document keep one group.
    """
    known = {sentence_key(example.text) for example in base}
    fresh = [example for example in examples if sentence_key(example.text) not in known]
    taken = {example.id for example in base}
    documents: defaultdict[str, set[str]] = defaultdict(set)
    for example in base:
        documents[example.group].add(_document_key(example))
    members: defaultdict[str, list[Example]] = defaultdict(list)
    for example in fresh:
        members[example.group].append(example)
    groups = {
        group: f"{group}@{(_document_key(own[0]) or sentence_key(own[0].text))[:_DIGITS]}"
        for group, own in members.items()
        if group in documents and _is_another(own, documents[group], taken)
    }
    return [
        replace(
            example,
            id=f"{example.id}@{sentence_key(example.text)[:_DIGITS]}"
            if example.id in taken
            else example.id,
            group=groups.get(example.group, example.group),
        )
        for example in fresh
    ]


def _is_another(document: Sequence[Example], keys: Set[str], taken: Set[str]) -> bool:
    """Say whether a document is none of those in a group of the base, which have these keys.

    Where a key is not known, another text under the same id says so.
    """
    key = _document_key(document[0])
    if key and "" not in keys:
        return key not in keys
    return key not in keys - {""} and any(example.id in taken for example in document)


def _document_key(example: Example) -> str:
    """Return the digest of the document that a queue took a sentence from, empty if not known."""
    return str(example.metadata.get("document_key", ""))
