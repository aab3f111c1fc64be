"""What computes a saved transformer: torch, or one of the exports that its directory holds."""

from pathlib import Path

from stance.errors import UserError

AUTO, TORCH, ONNX, ONNX_INT8 = ENGINES = ("auto", "torch", "onnx", "onnx_int8")
"""`auto` is the fastest export, or torch where there is none."""

EXPORTS = {ONNX: "model.onnx", ONNX_INT8: "model-int8.onnx"}
"""File names of the exports, the fastest one last."""


def choose_engine(kind: str, directory: Path, engine: str) -> str:
    """Return the engine that an `engine` setting means for a saved model.

    Classifiers of other kinds than transformers have one way to be computed, here called torch.

    Raises:
        UserError: the model does not hold the export asked for.
    """
    held = [name for name, file in EXPORTS.items() if (directory / file).exists()]
    if engine == AUTO:
        return held[-1] if held else TORCH
    if engine != TORCH and kind != "transformer":
        raise UserError(f"engine: {engine!r} computes transformers; {directory} is of kind {kind}")
    if engine != TORCH and engine not in held:
        raise UserError(
            f"engine: {directory} holds no export {engine!r}; it has {', '.join([TORCH, *held])}"
        )
    return engine
