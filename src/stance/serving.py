"""The pyfunc that registered models carry: MLflow reads this file as "model from code", no pickle.

Input: a table with a column `text`, one sentence a row. Output: one probability column `p_<label>`
per label, `labels` (names joined by commas, empty for none) and `uncertain`. The parameter
`operating_point` chooses other thresholds than the model's own, as in `precision@0.9`.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from stance.errors import UserError
from stance.model import StanceModel, load_model

TEXT = "text"
ARTIFACT = "model"
OPERATING_POINT = "operating_point"


class StancePyfunc(PythonModel):
    """A saved stance model behind MLflow's interface; the manifest is checked at loading."""

    def load_context(self, context: Any) -> None:
        """Load the model from the artifacts of the registered version."""
        self.model: StanceModel = load_model(Path(context.artifacts[ARTIFACT]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Label the sentences of the column `text`.

        Raises:
            UserError: the column is missing, or a row of it holds no text.
        """
        if TEXT not in model_input.columns:
            raise UserError(f"no column {TEXT!r}; found {', '.join(map(str, model_input.columns))}")
        point = (params or {}).get(OPERATING_POINT) or None
        texts = list(model_input[TEXT])
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise UserError(f"row {row}: {TEXT!r} must be a text, found {text!r}")
        prediction = self.model.predict(texts, point)
        table = pd.DataFrame(
            prediction.probabilities.round(6),
            columns=[f"p_{name}" for name in self.model.codebook.names],
            index=model_input.index,
        )
        table["labels"] = [",".join(labels) for labels in prediction.label_sets]
        table["uncertain"] = prediction.uncertain
        return table


set_model(StancePyfunc())
