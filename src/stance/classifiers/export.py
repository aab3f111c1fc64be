"""From a fine-tuned encoder to ONNX files: fp32, and int8 with fixed activation ranges.

Weights are quantised per output channel, with seven bits, so that the products of two neighbours
add up without overflow on processors that lack VNNI: every machine computes the same integers.
Activations get one range per layer, taken from training sentences; sums stay in fp32. The word
vectors, half of a small encoder, are kept as int8 with a scale for each word.
"""

import contextlib
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from stance.classifiers.encoding import batches_by_length
from stance.classifiers.engines import EXPORTS, ONNX, ONNX_INT8
from stance.classifiers.onnx import INPUTS, OUTPUT, SETTINGS, TOKENIZER, pad_batch
from stance.classifiers.transformer import TransformerClassifier, sentence_logits
from stance.errors import UserError

_CALIBRATION_SENTENCES = 512
_TOKENS_PER_BATCH = 1024
_SMALL = 1 << 10
"""Numbers in a table that is not worth shrinking."""


def export_classifier(
    classifier: TransformerClassifier, directory: Path, calibration: Sequence[str]
) -> None:
    """Write the exports of a fitted classifier into a directory that holds its tokenizer.

    Args:
        classifier: what to export.
        directory: where `TransformerClassifier.save` has written it.
        calibration: sentences, of the training split, from which activation ranges are taken.

    Raises:
        UserError: the encoder cannot be exported.
    """
    if not (directory / TOKENIZER).exists():
        raise UserError(f"{directory}: the encoder has no {TOKENIZER}, which ONNX engines need")
    settings = {
        "cues": classifier.cues,
        "cue_prior": classifier.cue_prior,
        "max_length": classifier.max_length,
        "pad": int(classifier.tokenizer.pad_token_id),
    }
    (directory / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    with _quiet():
        _write_fp32(classifier, directory / EXPORTS[ONNX])
        _write_int8(classifier, directory, calibration)


class _Logits(torch.nn.Module):
    """An encoder from token ids to the logits of sentences."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return sentence_logits(
            self.model, {"input_ids": input_ids, "attention_mask": attention_mask}
        )


def _write_fp32(classifier: TransformerClassifier, path: Path) -> None:
    ids = torch.ones(2, 5, dtype=torch.long)
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    length = torch.export.Dim("length", min=2, max=classifier.max_length)
    classifier.model.eval()
    try:
        program = torch.onnx.export(
            _Logits(classifier.model),
            (ids, torch.ones_like(ids)),
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes={name: {0: batch, 1: length} for name in INPUTS},
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{classifier.checkpoint}: cannot be exported to ONNX: {reason}") from error
    if program is None:
        raise UserError(f"{classifier.checkpoint}: the export to ONNX gave nothing")
    program.save(path)


def _write_int8(
    classifier: TransformerClassifier, directory: Path, calibration: Sequence[str]
) -> None:
    path = directory / EXPORTS[ONNX_INT8]
    with tempfile.TemporaryDirectory(prefix="stance-export-") as folder:
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(directory / EXPORTS[ONNX], ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            path,
            _Calibration(classifier, calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
            },
        )
    model = onnx.load(path)
    _shrink_word_vectors(model.graph)
    onnx.save(model, path)


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Batches of sentences from which activation ranges are taken."""

    def __init__(self, classifier: TransformerClassifier, texts: Sequence[str]) -> None:
        step = max(1, len(texts) // _CALIBRATION_SENTENCES)
        ids = classifier.encoder.windows(texts[::step][:_CALIBRATION_SENTENCES]).ids
        pad = int(classifier.tokenizer.pad_token_id)
        self._batches = (
            pad_batch([ids[row] for row in rows], pad)
            for rows in batches_by_length(ids, _TOKENS_PER_BATCH)
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def _shrink_word_vectors(graph: onnx.GraphProto) -> None:
    """Keep large tables that rows are taken from as int8, with a scale for each row."""
    tables = {table.name: table for table in graph.initializer if len(table.dims) == 2}
    uses = [name for node in graph.node for name in node.input]
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or np.prod(table.dims) < _SMALL or uses.count(table.name) > 1:
            nodes.append(node)
            continue
        vectors = numpy_helper.to_array(table)
        scales = np.abs(vectors).max(axis=1, keepdims=True) / 127
        scales[scales == 0] = 1
        small = np.rint(vectors / scales).astype(np.int8)
        graph.initializer.remove(table)
        name, rows = table.name, node.input[1]
        graph.initializer.append(numpy_helper.from_array(small, f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scale"))
        nodes += [
            helper.make_node("Gather", [f"{name}_int8", rows], [f"{name}_rows"]),
            helper.make_node("Gather", [f"{name}_scale", rows], [f"{name}_row_scales"]),
            helper.make_node(
                "Cast", [f"{name}_rows"], [f"{name}_float"], to=onnx.TensorProto.FLOAT
            ),
            helper.make_node("Mul", [f"{name}_float", f"{name}_row_scales"], list(node.output)),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' own talk out of the user's sight."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
