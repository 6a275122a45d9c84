"""T11, T17, T19, T22: nobody else's memories, times as they were meant, nothing cut in silence, every language."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tercet import InvalidRequest, MissingMemory, Tercet
from tercet.testing import FakeEmbedder, SeededClock
from tercet.text.read.message import Message


class TestTenants:
    """T11: nobody else's memory by any way in. tests/kernel/test_isolation.py has more."""

    def test_no_call_reaches_another_tenant(self, tmp_path: Path) -> None:
        with Tercet.open(tmp_path, embedder=FakeEmbedder()) as t:
            foreign = t.scope(tenant="b", user="alice").remember("The boiler code is 4417.", ref="r", tags=["home"])
            for scope in (t.scope(tenant="a"), t.scope(tenant="a", user="alice"), t.scope(user="alice"), t.scope()):
                assert not scope.recall("boiler code 4417")
                assert not scope.list(where={"tags": "home"})
                assert not scope.forget(where={"ref": "r"}).erased
                with pytest.raises(MissingMemory):
                    scope.get(foreign.id)
            assert t.scope(tenant="b").get(foreign.id) == foreign

    def test_no_tenant_named_is_one_tenant_and_not_all(self, tmp_path: Path) -> None:
        with Tercet.open(tmp_path, embedder=None) as t:
            t.scope(tenant="b").remember("Theirs.")
            assert t.scope().list().total == 0
            assert not {"recall", "list", "get", "forget"} & set(dir(t))


class TestTimes:
    """T17: relative dates are resolved where and when they were said."""

    @pytest.mark.parametrize("zone", ["Europe/Oslo", "America/Los_Angeles", "Asia/Tokyo", "Pacific/Auckland"])
    def test_yesterday_is_the_speakers_yesterday(self, tmp_path: Path, zone: str) -> None:
        """Half past midnight is still the day before in other zones; the clock of this machine does not matter."""
        said, text = datetime(2024, 5, 2, 0, 30, tzinfo=ZoneInfo(zone)), "Ann called me yesterday about the boiler."
        with Tercet.open(tmp_path, embedder=None, clock=SeededClock(datetime(2030, 1, 1, tzinfo=UTC))) as t:
            kept = t.scope().get(t.scope().remember(text, at=said).id)
        happened = kept.descriptive.happened
        assert happened is not None
        assert happened.start == datetime(2024, 5, 1, tzinfo=ZoneInfo(zone))
        assert happened.end == datetime(2024, 5, 2, tzinfo=ZoneInfo(zone))
        assert happened.span is not None
        assert kept.text[slice(*happened.span)] == "yesterday"
        assert kept.text == text

    def test_a_revision_is_said_now(self, tmp_path: Path) -> None:
        clock = SeededClock(datetime(2024, 6, 10, 12, tzinfo=UTC))
        with Tercet.open(tmp_path, embedder=None, clock=clock) as t:
            cube = t.scope().remember("Ann called yesterday.", at="2024-05-02T12:00:00Z")
            new = t.scope().revise(cube.id, "Ben called yesterday.")
        assert cube.descriptive.happened is not None
        assert new.descriptive.happened is not None
        assert new.descriptive.happened.start - cube.descriptive.happened.start == timedelta(days=39)

    def test_a_time_without_a_zone_is_refused_with_a_hint(self, tmp_path: Path) -> None:
        with Tercet.open(tmp_path, embedder=None) as t:
            for at in (datetime(2024, 5, 1), "2024-05-01T12:00:00"):  # noqa: DTZ001  # what is to be refused
                with pytest.raises(InvalidRequest, match="zone"):
                    t.scope().remember("x", at=at)
            assert t.scope().list().total == 0

    def test_the_offset_is_kept(self, tmp_path: Path) -> None:
        at = datetime(2024, 5, 1, 9, tzinfo=timezone(timedelta(hours=5, minutes=45)))
        with Tercet.open(tmp_path, embedder=None) as t:
            kept = t.scope().get(t.scope().remember("Namaste.", at=at).id).observed
        assert kept is not None
        assert kept.utcoffset() == timedelta(hours=5, minutes=45)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tercet]:
    with Tercet.open(tmp_path_factory.mktemp("vault"), embedder=FakeEmbedder()) as t:
        t.scope(user="alice").remember_many([f"Oslo number {i}." for i in range(2345)])
        yield t


class TestPaging:
    """T19: every answer says how much there is; nothing is cut in silence."""

    def test_everything_can_be_listed(self, crowded: Tercet) -> None:
        alice = crowded.scope(user="alice")
        assert (alice.list().total, alice.list().truncated) == (2345, True)
        assert (len(alice.list(limit=10_000)), alice.list(limit=10_000).truncated) == (2345, False)
        ids: set[str] = set()
        cursor = None
        while True:
            page = alice.list(limit=100, cursor=cursor)
            ids |= {cube.id for cube in page}
            cursor = page.cursor
            assert page.truncated is (cursor is not None)
            if cursor is None:
                break
        assert len(ids) == 2345

    def test_every_change_can_be_followed(self, crowded: Tercet) -> None:
        alice = crowded.scope(user="alice")
        ids: list[str] = []
        since = 0
        while lines := alice.changes(since=since, limit=500):
            ids, since = ids + [line.id for line in lines if line.action == "remember"], lines[-1].seq
        assert len(ids) == len(set(ids)) == 2345

    def test_a_recall_says_what_it_left_out(self, crowded: Tercet) -> None:
        alice = crowded.scope(user="alice")
        few, whole = alice.recall("Oslo", limit=7), alice.recall("Oslo", limit=10_000)
        assert (len(few), few.total, few.truncated) == (7, 2345, True)
        assert (len(whole), whole.total, whole.truncated) == (2345, 2345, False)
        some = alice.recall("Oslo number 17", limit=50, min_score=0.99)
        assert len(some) < 50
        assert "min_score" in (some.dropped or "")

    def test_a_batch_has_no_hidden_cap(self, crowded: Tercet) -> None:
        bob = crowded.scope(user="bob")
        cubes = bob.remember_many(f"Number {i}." for i in range(1500))
        assert len({cube.id for cube in cubes}) == 1500
        assert len(bob.forget([cube.id for cube in cubes]).erased) == 1500


SAID = {
    "zh": ("我上个月搬到了北京，天气很冷。", ["北京", "天气", "搬", "北"]),
    "zh-Hant": ("她喜歡喝烏龍茶。", ["烏龍茶", "喝", "喜歡"]),
    "ja": ("昨日、東京タワーに行きました。", ["東京", "タワー", "行", "東京タワー"]),
    "ko": ("나는 서울에서 김치찌개를 먹었다.", ["서울", "김치", "김치찌개", "먹"]),
    "ar": ("انتقلت إلى القاهرة في الصيف.", ["القاهرة", "الصيف"]),
    "he": ("עברתי לירושלים בקיץ.", ["לירושלים", "בקיץ"]),
    "ru": ("Я переехал в Москву в мае.", ["Москву", "москву"]),
    "hi": ("मैं दिल्ली में रहता हूँ।", ["दिल्ली"]),
    "th": ("ฉันชอบกินข้าวผัด", ["ฉันชอบกินข้าวผัด"]),
    "de": ("Die Straße heißt Müllerweg.", ["Müllerweg", "müllerweg", "STRASSE", "straße"]),
    "emoji": ("We ordered 🍕 for the party.", ["party", "🍕", "🍕?"]),
    "full width": ("Ｔｅｒｃｅｔ １２３", ["tercet", "123"]),
}


@pytest.fixture(scope="module")
def polyglot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tercet]:
    with Tercet.open(tmp_path_factory.mktemp("vault"), embedder=None) as t:
        alice = t.scope(user="alice")
        alice.remember_many(
            ["上海今天下雨。", "大阪でたこ焼きを食べた。", "부산은 바다가 있다.", "الإسكندرية جميلة.", "Hello."]
        )
        alice.remember_many([Message(text, ref=name) for name, (text, _) in SAID.items()])
        yield t


class TestLanguages:
    """T22: other scripts and short questions are found by words, without a model."""

    @pytest.mark.parametrize(("name", "word"), [(name, word) for name, (_, words) in SAID.items() for word in words])
    def test_a_word_is_found(self, polyglot: Tercet, name: str, word: str) -> None:
        assert polyglot.scope(user="alice").recall(word)[0].cube.text == SAID[name][0]

    @pytest.mark.parametrize(
        ("question", "name"),
        [
            ("他什么时候搬到北京的？", "zh"),
            ("東京のどこに行きましたか？", "ja"),
            ("서울에서 무엇을 먹었어요?", "ko"),
            ("متى انتقلت إلى القاهرة؟", "ar"),
            ("When did we order for the party? 🎉", "emoji"),
        ],
    )
    def test_a_question_is_answered(self, polyglot: Tercet, question: str, name: str) -> None:
        assert polyglot.scope(user="alice").recall(question)[0].cube.text == SAID[name][0]

    def test_short_questions_are_answered(self, tmp_path: Path) -> None:
        """One word, one letter, one number, one character."""
        with Tercet.open(tmp_path, embedder=None) as t:
            texts = ["Go is a game.", "My blood type is B.", "Room 7 is free.", "C is a language.", "茶が好き。"]
            t.scope().remember_many(texts)
            for question, text in zip(["go", "B", "7", "c", "茶"], texts, strict=True):
                assert t.scope().recall(question)[0].cube.text == text
