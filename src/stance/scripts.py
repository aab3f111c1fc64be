"""What the scripts at the root share: quoting of paths, one-line errors, exit codes."""

import functools
import io
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from stance.config import one_line, register_schemas
from stance.errors import UserError

COLUMNS = ("text_column", "label_column", "id_column", "group_column", "label_separator")
"""Keys of the group `data` that name a column or what stands in one."""

EXIT_USER_ERROR = 2
EXIT_REFUSED = 3
EXIT_INTERRUPTED = 130


def one_line_errors(task: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Let a task's user errors end the process with one line, before Hydra adds its own to them."""

    @functools.wraps(task)
    def guarded(values: DictConfig) -> None:
        try:
            task(values)
        except UserError as error:
            _end(str(error))

    return guarded


def run_script(
    main: Callable[[], None], *, texts: Sequence[str] = (), aliases: Mapping[str, str] | None = None
) -> None:
    """Run a Hydra main function and end the process with its exit code.

    Args:
        main: a function decorated by `hydra.main`.
        texts: keys whose value is one text, as a path or the name of a column. Hydra's grammar
            would stumble over a comma, a bracket or a letter outside ASCII in it, so the value is
            quoted here.
        aliases: keys of the command line and the config's keys that they stand for. A key that
            bears the name of a config group can only be reached so: Hydra takes its value for a
            choice within the group.
    """
    register_schemas()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path need not be UTF-8
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to the lines below
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    sys.argv[1:] = [_quote(_rename(a, aliases or {}), texts) for a in sys.argv[1:]]
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        _end(one_line(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def _end(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)


def _rename(argument: str, aliases: Mapping[str, str]) -> str:
    key, equals, value = argument.partition("=")
    return f"{aliases.get(key, key)}={value}" if equals else argument


def _quote(argument: str, texts: Sequence[str]) -> str:
    key, equals, value = argument.partition("=")
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in ("'", '"')
    if not equals or key not in texts or quoted or value in ("", "null"):
        return argument
    # Backslashes count only before a quote, and ${ begins an interpolation of OmegaConf's.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"{key}='{escaped.replace('${', chr(92) + '${')}'"
