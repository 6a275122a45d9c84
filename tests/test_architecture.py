"""The house keeps its shape: floors, sizes, and a few things nobody does."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "tercet"
MODULES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}

FLOORS: Mapping[str, int] = {
    "cube": 1, "scope": 1, "lifecycle": 1, "errors": 1,
    "vault": 2, "engine": 2,
    "text": 3, "activation": 3, "parametric": 3,
    "govern": 4, "schedule": 4, "converse": 4,
    "keeping": 5, "steering": 5, "sharing": 5, "scoped": 5, "admin": 5, "timeline": 5, "auditing": 5, "sealing": 5,
    "chores": 5, "weights": 5, "relearning": 5, "kernel": 5, "aio": 5,
    "exchange": 6, "evaluate": 6, "testing": 6, "demo": 6,
    "serve": 7, "cli": 7, "__main__": 7,
    "models": 2, "tiers": 3,
}  # fmt: skip
"""What may import what: its own floor and those below. The package itself stands above all; it is a table of names."""

APART = [{"vault", "engine"}, {"text", "activation", "parametric"}, {"govern", "schedule", "converse"}]
"""Rooms of one floor that know nothing of each other: they may import the floors below only, and themselves."""


def room(path: Path) -> str:
    """The first part of a module's name below the package; empty for the package itself."""
    part = path.relative_to(SOURCE).parts[0]
    return "" if part == "__init__.py" else part.removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module a tree imports, anywhere in it, by its full name (`from a import b` gives a.b too)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floor"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_of(tree: ast.AST) -> set[str]:
    """The rooms a tree imports from."""
    names = (name.split(".") for name in imports(tree))
    return {parts[1] for parts in names if parts[0] == "tercet" and len(parts) > 1 and parts[1] in FLOORS}


def points_up(importer: str, imported: str) -> bool:
    """Whether an import breaks the floors."""
    if any({importer, imported} <= rooms and importer != imported for rooms in APART):
        return True
    return FLOORS[imported] > FLOORS[importer]


def test_every_room_has_a_floor() -> None:
    assert {room(path) for path in MODULES} - {""} <= set(FLOORS)


def test_no_import_points_up() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)} imports {imported}"
        for path, tree in MODULES.items()
        if room(path)
        for imported in rooms_of(tree)
        if points_up(room(path), imported)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("importer", "line", "wrong"),
    [
        ("vault", "from tercet.kernel import Tercet", True),
        ("vault", "from tercet import kernel", True),
        ("vault", "def f():\n    import tercet.text.prepare", True),
        ("govern", "from tercet.schedule.worker import run_due", True),
        ("text", "from tercet.vault.sqlite import Tenant", False),
        ("cli", "from tercet.kernel import Tercet", False),
        ("cube", "import tercet.scope", False),
    ],
)
def test_the_floors_are_seen(*, importer: str, line: str, wrong: bool) -> None:
    assert any(points_up(importer, imported) for imported in rooms_of(ast.parse(line))) is wrong


def test_the_ground_floor_stands_on_nothing() -> None:
    for path, tree in MODULES.items():
        if FLOORS.get(room(path)) == 1:
            tops = {name.split(".")[0] for name in imports(tree)}
            assert tops - {"tercet"} <= set(sys.stdlib_module_names), path
            assert not tops & {"os", "time", "socket", "random", "pathlib", "threading"}, path


def test_importing_the_package_imports_none_of_its_rooms() -> None:
    package = MODULES[SOURCE / "__init__.py"]
    at_run_time = ast.Module(
        [node for node in package.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))],
        [],
    )
    assert rooms_of(at_run_time) == set()


def test_modules_stay_small() -> None:
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in MODULES}
    assert {path: n for path, n in lines.items() if n > 600} == {}
    assert median(lines.values()) <= 150


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method, with where it stands."""
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}", node


def test_functions_stay_small() -> None:
    def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        # A docstring tells what a function does; it is not what makes one hard to read.
        body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
        return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0

    assert {name: length(node) for name, node in functions() if length(node) >= 60} == {}


def test_functions_take_few_arguments() -> None:
    def count(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        return len([one for one in given if one.arg not in {"self", "cls"}])

    # `Tercet.open` takes what one may choose about a vault, each by name.
    wordy = {name: count(node) for name, node in functions() if count(node) > 8}
    assert [name for name in wordy if not name.endswith(" open")] == []


FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "sqlite3"}
FORBIDDEN_CALLS = {"eval", "exec", "__import__", "torch.load", "np.load", "numpy.load", "yaml.load"}


def safe_load(node: ast.Call) -> bool:
    """numpy reads arrays without unpickling only when it is told not to."""
    told = [word.value for word in node.keywords if word.arg == "allow_pickle"]
    return ast.unparse(node.func) in {"np.load", "numpy.load"} and [ast.unparse(value) for value in told] == ["False"]


def test_nothing_is_unpickled_evaluated_or_read_with_another_sqlite() -> None:
    for path, tree in MODULES.items():
        assert not {name.split(".")[0] for name in imports(tree)} & FORBIDDEN_MODULES, path
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        found = [f"{path.name}:{call.lineno} {ast.unparse(call.func)}" for call in calls if not safe_load(call)
                 and ast.unparse(call.func) in FORBIDDEN_CALLS]  # fmt: skip
        assert found == []


def test_no_failure_is_kept_quiet() -> None:
    """Whoever catches everything raises something. A probe in `testing` may note what it caught: that is its answer."""
    for path, tree in MODULES.items():
        for node in ast.walk(tree) if room(path) != "testing" else ():
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type is not None else "BaseException"
                if {"Exception", "BaseException"} & set(caught.strip("()").split(", ")):
                    assert any(isinstance(inner, ast.Raise) for inner in ast.walk(node)), f"{path}:{node.lineno}"


def test_every_public_name_leads_somewhere() -> None:
    import tercet

    for name in tercet.__all__:
        assert getattr(tercet, name) is not None
    assert set(tercet.__all__) <= set(dir(tercet))
    assert not hasattr(tercet, "nonsense")
