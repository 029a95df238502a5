"""The house stays as it was drawn: its top level, the arrows between rooms, no cycles, empty `__init__.py` files.

export ──► model ◄── server          loadtest: on its own (it talks HTTP)          only tests ──► server, loadtest
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("model", "export", "server", "loadtest")
ALLOWED_ARROWS = {
    "model": {"model"},
    "export": {"export", "model"},
    "server": {"server", "model"},
    "loadtest": {"loadtest"},
}
TOP_LEVEL = {
    *("Dockerfile", "docker-compose.yml", "server", "model", "export", "loadtest", "tests", "pyproject.toml"),
    *("README.md", "LICENSE", "Makefile", "CHANGELOG.md", ".ci", "docs"),
    *(".gitignore", ".dockerignore"),  # git and docker read them nowhere else
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


def imports(name: str, *, at_load: bool = False) -> set[str]:
    """The modules of this house that a module imports: anywhere in it, or only what loading it imports."""
    tree = ast.parse(MODULES[name].read_text())
    found = set()
    for node in _nodes(tree, at_load):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(name, node)
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
    return {imported for imported in found if imported.split(".")[0] in ROOMS}


def _nodes(tree: ast.AST, at_load: bool) -> Iterator[ast.AST]:
    """Every node; `at_load` leaves out function bodies and what is for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if at_load and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if at_load and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from _nodes(node, at_load)


def _absolute(name: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = name.split(".") if MODULES[name].name == "__init__.py" else name.split(".")[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def closure(name: str, *, at_load: bool = False) -> set[str]:
    """Everything that a module imports, directly or not: functions' imports included, or only what loading it does."""
    reached, waiting = set(), [name]
    while waiting:
        module = waiting.pop()
        if module not in reached and module in MODULES:
            reached.add(module)
            waiting += imports(module, at_load=at_load)
    return reached


@pytest.mark.parametrize("name", MODULES)
def test_arrows_point_only_where_the_design_lets_them(name: str):
    allowed = ALLOWED_ARROWS[name.split(".")[0]]
    wrong = {imported for imported in imports(name) if imported.split(".")[0] not in allowed}
    assert not wrong, f"{name} must not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("name", MODULES)
def test_every_import_of_this_house_exists(name: str):
    assert imports(name) <= set(MODULES)


def test_loading_modules_never_goes_in_a_circle():
    try:
        TopologicalSorter({name: imports(name, at_load=True) - {name} for name in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_the_pipeline_and_what_it_imports_never_import_a_backbone():
    assert not {name for name in closure("model.pipeline") if name.startswith("model.backbones.")}


def test_the_server_loads_no_scan_before_a_model_needs_one():
    """Numba was imported at every start, for exports too, which do without."""
    loaded = closure("server.process", at_load=True)
    assert "server.source" in loaded
    assert not {name for name in loaded if name.startswith(("model.backbones.", "model.scan_"))}


def test_the_model_and_the_engine_know_no_http():
    for name in {*(n for n in MODULES if n.startswith("model")), *closure("server.engine")}:
        for node in ast.walk(ast.parse(MODULES[name].read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & {"fastapi", "starlette", "uvicorn"}, f"{name} imports {names}"


def test_init_files_are_empty_and_tests_have_none():
    assert not [path for path in MODULES.values() if path.name == "__init__.py" and path.read_text().strip()]
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for path in MODULES.values()}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


@pytest.mark.parametrize("name", [name for name, path in MODULES.items() if path.name != "__init__.py"])
def test_every_module_opens_with_a_docstring(name: str):
    assert ast.get_docstring(ast.parse(MODULES[name].read_text())), f"{name} needs one sentence that says what it is"


def test_no_module_hides_a_standard_module_or_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    taken = sys.stdlib_module_names | {re.split(r"[^\w-]", requirement)[0] for requirement in required}
    assert not {name for name in MODULES if name.split(".")[-1] in taken}


def test_the_top_level_is_the_designs():
    listed = subprocess.run(
        ["git", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout, so stray files cannot be told from kept ones")
    assert {path.split("/")[0] for path in listed.stdout.split("\0") if path} == TOP_LEVEL
