"""The manual is under test: it names what there is, its examples run, and its generated parts are fresh."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import tercet
from tercet.cli import COMMANDS
from tercet.lifecycle import EDGES, State
from tercet.text.read.exports import EXPORTS
from tercet.text.read.files import READERS
from tercet.text.recall.context import TOKENIZERS
from tercet.text.recall.policies import POLICIES
from tercet.vault.filters import COLUMNS, COMPARISONS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPERATORS = [*COMPARISONS, "$ne", "$in", "$nin", "$exists"]


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("manual_gen", ROOT / "docs" / "gen.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GEN = load_generator()


@pytest.fixture(scope="module")
def manual() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.name not in {"LOG.md", "changelog.md"})


@pytest.mark.parametrize(
    "name", [*COMMANDS, *POLICIES, *READERS, *EXPORTS, *TOKENIZERS, *tercet.__all__, *State, *COLUMNS, *OPERATORS]
)
def test_is_in_the_manual(name: str, manual: str) -> None:
    assert f"`{name}`" in manual


def test_every_command_of_the_contract_is_there() -> None:
    wanted = (
        "remember recall list show revise history rollback forget import export eval worker doctor backup stats demo "
        "snapshot branch diff restore"
    )
    assert set(wanted.split()) <= set(COMMANDS)


def test_generated_parts_are_fresh() -> None:
    assert [str(path) for path in GEN.stale()] == [], "run `python docs/gen.py`"


def test_a_changed_part_is_seen_as_stale() -> None:
    page = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    changed = page.replace("| `expired` | – |", "| `expired` | yes |")
    assert changed != page
    assert GEN.filled(changed) == page


def test_the_lifecycle_table_has_exactly_the_legal_edges() -> None:
    page = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in page.partition("## Lifecycle")[2].splitlines()
        if line.startswith("|") and "---" not in line
    ]
    header, *body = rows
    drawn = {(row[0], to) for row in body for to, cell in zip(header[1:], row[1:], strict=True) if cell == "yes"}
    assert drawn == {(a.value, b.value) for a, edges in EDGES.items() for b in edges}


EXAMPLES = {page.relative_to(ROOT).as_posix(): FENCE.findall(page.read_text(encoding="utf-8")) for page in PAGES}


@pytest.mark.parametrize("name", [name for name, blocks in EXAMPLES.items() if blocks])
def test_python_blocks_run(name: str, tmp_path: Path) -> None:
    # In a process of its own, one page's blocks after each other, as a reader would paste them.
    script = tmp_path / "example.py"
    script.write_text("\n".join(EXAMPLES[name]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", script.name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_the_first_pages_have_examples(name: str) -> None:
    assert EXAMPLES[name]


@pytest.mark.parametrize(
    "requirement",
    [
        name
        for group in ("dependencies", "documents", "dev")
        for name in GEN.requirements(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")), group)
    ],
)
def test_every_dependency_is_explained(requirement: str) -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert re.search(rf"`{re.escape(requirement)}`", page, re.IGNORECASE)


def test_the_readme_names_its_two_commands_and_the_makefile_has_them() -> None:
    readme, makefile = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "Makefile"))
    for target in ("demo", "test"):
        assert f"make {target} " in readme
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_manual_builds_and_its_pages_fetch_nothing(tmp_path: Path) -> None:
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", site],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(site.rglob("*.html"))
    assert len(pages) >= len(list((ROOT / "docs").rglob("*.md")))
    fetched = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//")
    assert [page.name for page in pages if fetched.search(page.read_text(encoding="utf-8"))] == []
