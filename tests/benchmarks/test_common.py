"""The helpers that every benchmark script leans on."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import common


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [([7.0], 95, 7.0), ([4.0, 1.0, 3.0, 2.0], 50, 2.5), ([0.0, 10.0], 95, 9.5), ([1.0, 2.0, 3.0], 0, 1.0)],
)
def test_percentile(values: list[float], q: float, expected: float) -> None:
    assert common.percentile(values, q) == pytest.approx(expected)


@pytest.mark.parametrize(("values", "q"), [([], 50), ([1.0], 101), ([1.0], -1)])
def test_percentile_refuses(values: list[float], q: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        common.percentile(values, q)


def test_table_lines_up() -> None:
    text = common.table(["", "a"], [["speed", 1234.5], ["none", None], ["share", 0.61234]])
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2] == "| speed | 1,234 |"
    assert [line.split("|")[2].strip() for line in lines[3:]] == ["-", "0.612"]


def test_only_takes_known_keys(capsys: pytest.CaptureFixture[str]) -> None:
    options = common.parser("x", ("a", "b", "c"))
    assert options.parse_args([]).only == ["a", "b", "c"]
    assert options.parse_args(["--only", "c, a"]).only == ["c", "a"]
    with pytest.raises(SystemExit) as left:
        options.parse_args(["--only", "a,nobody"])
    assert left.value.code == 2
    assert "nobody" in capsys.readouterr().err


def test_each_row_is_told_of_on_the_error_stream_as_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    said = list[str]()

    def make(key: str) -> str:
        said.append(capsys.readouterr().err)
        return key.upper()

    assert common.each(["b", "a"], make) == {"b": "B", "a": "A"}
    assert [one.partition(":")[0].strip() for one in said] == ["", "b"]
    assert capsys.readouterr() == ("", "  a: 0 s\n")


def test_a_script_without_rows_has_no_only() -> None:
    assert not hasattr(common.parser("x").parse_args(["--quick"]), "only")
    assert isinstance(common.parser("x"), argparse.ArgumentParser)


def test_data_file_is_found_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_DATA", str(tmp_path))
    with pytest.raises(common.DataMissingError, match="TERCET_DATA"):
        common.data_file("some.json")
    (tmp_path / "some.json").write_text("[]")
    assert common.data_file("some.json") == tmp_path / "some.json"


def test_peak_memory_grows_with_what_is_held() -> None:
    # In a process of its own: the peak of this one may be far above what it holds now.
    script = """
from benchmarks import common
before = common.peak_rss_mb()
held = b"x" * 80_000_000
print(common.peak_rss_mb() - before)
"""
    root = Path(common.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, check=True, capture_output=True, text=True)
    assert float(done.stdout) >= 30


def test_store_bytes_counts_nested_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    (tmp_path / "c").write_bytes(b"123")
    assert common.store_bytes(tmp_path) == 8


def test_save_writes_where_results_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    path = common.save("x", {"a": 1})
    assert path == tmp_path / "results" / "x.json"
    assert path.read_text() == '{\n "a": 1\n}\n'
