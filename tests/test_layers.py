"""The table of layers in docs/design.md holds: an import goes to a strictly lower layer."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def layers() -> dict[str, int]:
    """Module -> layer, as docs/design.md says: the names in backquotes that are files of the package."""
    found = {}
    for line in (ROOT / "docs" / "design.md").read_text(encoding="utf-8").splitlines():
        row = re.match(r"\| (\d+) \| (.*) \|$", line)
        for name in re.findall(r"`(\w+)`", row.group(2)) if row else []:
            if (ROOT / "speechssl" / f"{name}.py").exists() and name not in found:
                found[name] = int(row.group(1))
    return found


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("speechssl."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "speechssl":
            found |= {alias.name for alias in node.names if alias.name != "__version__"}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("speechssl.")}
    return found


def test_every_module_has_a_layer() -> None:
    assert {path.stem for path in (ROOT / "speechssl").glob("*.py")} == set(layers())


def test_imports_go_strictly_down() -> None:
    level = layers()
    wrong = [
        f"{path.stem} (layer {level[path.stem]}) imports {name} (layer {level[name]})"
        for path in sorted((ROOT / "speechssl").glob("*.py"))
        for name in sorted(imports(path))
        if level[name] >= level[path.stem]
    ]
    assert wrong == []


def test_only_audio_knows_soundfile() -> None:
    """And the benchmark, which compares our reading with soundfile alone."""
    users = [p.stem for p in (ROOT / "speechssl").glob("*.py") if "soundfile" in p.read_text(encoding="utf-8")]
    assert sorted(users) == ["audio", "bench"]
