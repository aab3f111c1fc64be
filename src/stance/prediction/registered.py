"""Models named by MLflow's registry: their files are fetched, then loaded like any saved model.

This is the only way from prediction to tracking, taken only for such a name; a folder needs none.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stance.config import PredictConfig

_SCHEMES = ("models:/", "runs:/")


@contextlib.contextmanager
def model_at_hand(config: PredictConfig) -> Iterator[Path]:
    """Yield the folder of the model that `model_dir` names; a fetched one lasts for the block.

    The registry is that of `MLFLOW_TRACKING_URI`, or else of `models/mlflow.db`.

    Raises:
        UserError: the model cannot be fetched.
    """
    if not config.model_dir.startswith(_SCHEMES):
        yield Path(config.model_dir)
        return
    from stance.tracking import Store, fetch_model

    store = Store("mlflow", os.environ.get("MLFLOW_TRACKING_URI", ""), "", Path("models"))
    with tempfile.TemporaryDirectory(prefix="stance-model-") as folder:
        yield fetch_model(store, config.model_dir, Path(folder))
