"""What the tests know of the pipeline from dvc.yaml and from the code's own text, without running it."""

import ast
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent

# Reading parameters, reporting errors, renaming files and drawing bars decide no output, so a change in
# them need not run any stage again.
PLUMBING = {f"spp_scl/{name}.py" for name in ("params", "errors", "files", "progress")}


def stages() -> dict[str, dict]:
    return YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def parameters_read(script: Path) -> set[str]:
    """The longest chains `params.a.b` in a script; fails when `params` is handed on as a whole."""
    tree = ast.parse(script.read_text())
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    chains = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "params" and isinstance(node.ctx, ast.Load):
            parts = []
            while isinstance(parents[node], ast.Attribute):
                node = parents[node]
                parts.append(node.attr)
            assert parts, f"{script}: `params` is handed on as a whole, so what it is read for is hidden"
            chains.add(".".join(parts))
    return chains


def code_needed(script: Path) -> set[str]:
    """The modules of the package that a script imports, directly or not, and the script itself."""
    found, waiting = set(), [script]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(ROOT).as_posix()
        if name in found or name in PLUMBING:
            continue
        found.add(name)
        for node in ast.walk(ast.parse(path.read_text())):
            for module in _imported(node):
                candidate = ROOT / (module.replace(".", "/") + ".py")
                if module.startswith("spp_scl") and candidate.is_file():
                    waiting.append(candidate)
    return found


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []
