from __future__ import annotations

import pytest

from tercet.text.read.markdown import HUGE, MAX_LABEL, read_markdown

GARDEN = """\
---
title: "The garden"
tags: [a, b]
---

# Garden

Intro words.

## Roses ##

Red ones.

Beds
----

South bed.

# Shed

### Tools

Spade.
"""


def test_passages_follow_the_headings() -> None:
    found = [(cube.text, cube.metadata.get("heading")) for cube in read_markdown(GARDEN)]
    assert found == [
        ('---\ntitle: "The garden"\ntags: [a, b]\n---', None),
        ("# Garden\n\nIntro words.", "Garden"),
        ("## Roses ##\n\nRed ones.", "Garden > Roses"),
        ("Beds\n----\n\nSouth bed.", "Garden > Beds"),
        ("# Shed\n\n### Tools\n\nSpade.", "Shed > Tools"),
    ]


def test_front_matter_names_the_document() -> None:
    cubes = read_markdown(GARDEN)
    assert cubes[0].metadata == {"part": "front matter", "title": "The garden"}
    assert {cube.metadata["title"] for cube in cubes} == {"The garden"}
    assert {cube.metadata["title"] for cube in read_markdown(GARDEN, title="Mine")} == {"Mine"}


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Garden\n\nwords", "Garden"),
        ("+++\ntitle = 'Toml'\n+++\n# Garden", "Toml"),
        ("---\r\ntitle: Crlf\r\n---\r\nwords", "Crlf"),
        ("---\nno key here\n---\nwords", None),
        ("---\ntitle: never closed\n", None),
        ("words only", None),
    ],
)
def test_titles(text: str, title: str | None) -> None:
    assert read_markdown(text)[-1].metadata.get("title") == title


@pytest.mark.parametrize(
    "block",
    [
        "```python\n# no heading\n\nx = 1\n\ny = 2. Then z.\n```",
        "~~~\na\n```\n\nb\n~~~",
        "| a | b |\n|---|:-:|\n| 1 | 2 |\n| 3 | 4 |",
    ],
)
def test_code_and_tables_are_not_torn(block: str) -> None:
    texts = [cube.text for cube in read_markdown(f"Words before it here.\n\n{block}\n\nWords after.", size=24)]
    assert block in texts


def test_what_is_in_code_is_no_heading() -> None:
    cubes = read_markdown("# A\n\n```\n# B\n```\n\nwords")
    assert [cube.metadata["heading"] for cube in cubes] == ["A"]


def test_huge_code_is_torn_between_lines() -> None:
    code = "```\n" + "".join(f"line_{n} = 1\n" for n in range(100)) + "```"
    texts = [cube.text for cube in read_markdown(code, size=60)]
    assert len(texts) > HUGE
    assert "\n".join(texts) == code


def test_an_unclosed_fence_runs_to_the_end() -> None:
    assert [cube.text for cube in read_markdown("```\na\n\n# b")] == ["```\na\n\n# b"]


def test_long_sections_are_cut_and_keep_their_heading() -> None:
    text = "# A\n\n" + "It rains. " * 40
    cubes = read_markdown(text, size=100)
    assert len(cubes) > 3
    assert {cube.metadata["heading"] for cube in cubes} == {"A"}
    assert max(len(cube.text) for cube in cubes) <= 100


def test_small_paragraphs_of_a_section_share_a_passage() -> None:
    assert [cube.text for cube in read_markdown("# A\n\none\n\ntwo\n\nthree", size=14)] == [
        "# A\n\none\n\ntwo",
        "three",
    ]


def test_a_long_heading_is_cut_in_the_metadata_only() -> None:
    heading = "# " + "x" * 500
    (cube,) = read_markdown(heading + "\n\nwords")
    assert cube.text.startswith(heading)
    assert len(str(cube.metadata["heading"])) == MAX_LABEL


def test_headings_alone_are_kept() -> None:
    assert [(c.text, c.metadata["heading"]) for c in read_markdown("# A\nwords\n# B")] == [
        ("# A\nwords", "A"),
        ("# B", "B"),
    ]


@pytest.mark.parametrize("line", ["#no", "#######", "    words", "a | b", "-", "***"])
def test_lines_that_only_look_like_structure(line: str) -> None:
    assert "heading" not in read_markdown(f"words\n\n{line}\n\nwords")[0].metadata
