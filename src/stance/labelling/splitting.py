"""Deal a labelled file into the splits that training wants, and say what each one holds."""

from collections.abc import Mapping
from pathlib import Path

from stance.codebook import Codebook
from stance.config import LabelConfig, columns_of
from stance.corpus.examples import Example, Split, read_split
from stance.corpus.quality import Corpus, Located, profile
from stance.corpus.splits import deal
from stance.errors import UserError
from stance.labelling.checking import print_profiles
from stance.labelling.files import write_rows
from stance.labelling.screen import open_console


def split_file(config: LabelConfig) -> dict[str, Path]:
    """Write train, validation and test of a labelled file into a folder; print what they hold.

    Raises:
        UserError: the file cannot be read or dealt, or one of the splits stands there already.
    """
    if not (config.split and config.output):
        raise UserError("output: name the folder that the splits go to")
    codebook = Codebook.from_mapping(config.codebook, "codebook")
    examples = read_split(Path(config.split), config.split, codebook, columns_of(config.data))
    splits = deal(examples, _shares(config), near=config.choose.near, seed=config.seed)
    paths = {name: Path(config.output) / f"{name}.jsonl" for name in splits}
    for path in paths.values():
        if path.exists():
            raise UserError(f"output: {path}: stands there already and is not overwritten")
    for name, path in paths.items():
        write_rows(path, map(Example.to_row, splits[name].examples), replace=False)
    _print(splits, paths, codebook)
    return paths


def _shares(config: LabelConfig) -> dict[str, float]:
    """Return the share of each split, without those of nought."""
    train = 1 - config.validation_share - config.test_share
    if train <= 0:
        raise UserError(
            f"validation_share: {config.validation_share:g}, test_share: {config.test_share:g}: "
            f"together they leave nothing to train on"
        )
    shares = {"train": train, "validation": config.validation_share, "test": config.test_share}
    return {name: share for name, share in shares.items() if share}


def _print(splits: Mapping[str, Split], paths: Mapping[str, Path], codebook: Codebook) -> None:
    located = [Located(e, name, "") for name, split in splits.items() for e in split.examples]
    print_profiles(profile(Corpus(tuple(located), codebook, ())), codebook)
    named = " ".join(f"data.{name}=[{path}]" for name, path in paths.items())
    console = open_console()
    console.print(
        f"next:  python train.py model=tfidf data=none {named}", soft_wrap=True, markup=False
    )
