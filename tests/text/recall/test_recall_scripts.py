"""Chinese, Japanese and Korean are recalled by words: the model that comes with Tercet does not know them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tercet import Tercet
from tercet.vault.search.analyse import mostly_cjk


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我住在奥斯陆", True),
        ("東京に住んでいます", True),
        ("서울에 삽니다", True),
        ("I live in 東京", False),
        ("1234?", False),
    ],
)
def test_a_script_is_told_by_its_letters(text: str, expected: bool) -> None:  # noqa: FBT001
    assert mostly_cjk(text) is expected


@pytest.mark.slow
def test_a_chinese_question_is_answered_by_words_and_says_so(tmp_path: Path) -> None:
    with Tercet.open(tmp_path) as t:
        alice = t.scope(user="alice")
        alice.remember("我五月搬到了奥斯陆。")
        alice.remember("我喜欢梨。")
        found = alice.recall("奥斯陆")
        assert found[0].cube.text == "我五月搬到了奥斯陆。"
        assert str(found[0].why["by"]).startswith("words (all-MiniLM-L6-v2 knows English")
        assert alice.recall("What fruit?")[0].why["by"] == "words and vectors"
