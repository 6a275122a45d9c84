"""Every row of the threat model names a test, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
COLUMNS = ["threat", "actor", "control", "test", "what it does not stop"]


def rows() -> list[list[str]]:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    lines = [
        line for line in page.partition("## Threat model")[2].partition("\n## ")[0].splitlines() if line[:1] == "|"
    ]
    header, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert header == COLUMNS
    return body


def exists(name: str) -> bool:
    file, _, function = name.partition("::")
    path = ROOT / file
    if not path.is_file():
        return False
    if not function:
        return True
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return function in {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_each_row_is_whole_and_names_tests_that_exist() -> None:
    assert len(rows()) > 15
    for row in rows():
        assert len(row) == len(COLUMNS)
        assert all(row), row
        named = re.findall(r"`(tests/[^`]+)`", row[3])
        assert named, row
        assert [name for name in named if not exists(name)] == []


def test_a_test_that_is_not_there_is_seen() -> None:
    assert exists("tests/docs/test_threats.py::exists")
    assert not exists("tests/docs/test_threats.py::nobody")
    assert not exists("tests/docs/nobody.py")
