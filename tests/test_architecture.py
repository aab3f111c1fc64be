"""Imports run one way, and only tracking knows MLflow."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src/stance"

# Lower rooms first; a module may import from its own room and from those before it.
ROOMS = [
    {"errors"},
    {"codebook"},
    {"text", "cues"},
    {"corpus", "decision", "evaluation"},
    {"config"},
    {"classifiers"},
    {"model"},
    {"exports"},
    {"tracking", "serving"},
    {"comparison"},
    {"training", "sweeps", "promotion", "prediction", "labelling"},
    {"scripts"},
]
WINGS = {"training", "promotion", "prediction", "labelling"}
TRACKERS = {"tracking.py", "serving.py"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module))
    return found


def room_of(module: str) -> int:
    return next(number for number, room in enumerate(ROOMS) if module in room)


def modules() -> list[tuple[Path, str]]:
    return [
        (path, path.relative_to(SOURCE).parts[0].removesuffix(".py"))
        for path in sorted(SOURCE.rglob("*.py"))
        if path != SOURCE / "__init__.py"
    ]


def test_imports_point_downwards() -> None:
    for path, own in modules():
        for name in imports(path):
            if name.startswith("stance."):
                other = name.split(".")[1]
                assert room_of(other) <= room_of(own), f"{path} imports {name}"


def test_wings_do_not_import_each_other() -> None:
    for path, own in modules():
        if own in WINGS:
            others = {n.split(".")[1] for n in imports(path) if n.startswith("stance.")}
            assert not (others & WINGS) - {own}, path


def test_only_tracking_imports_mlflow() -> None:
    users = {
        path.name
        for path, _ in modules()
        if any(n.split(".")[0] == "mlflow" for n in imports(path))
    }
    assert users <= TRACKERS
    assert "tracking.py" in users


def test_no_module_names_a_label_of_the_shipped_codebook(stance_codebook) -> None:  # type: ignore[no-untyped-def]
    for path, _ in modules():
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not strings & set(stance_codebook.names), path
