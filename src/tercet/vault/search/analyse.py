"""Text to index terms: what counts as a word, the same for what is stored and what is asked.

Words are NFKC-normalised, case-folded and, where they are ASCII letters, reduced to their Porter stem; numbers are
kept. Han, kana and Hangul are written without (reliable) spaces, so a run of them gives its characters and its pairs of
neighbouring characters; no other script is cut. An emoji is a word of its own. Everything here is a pure function,
safe to call from any thread.
"""

from __future__ import annotations

import re
import unicodedata

LONGEST = 64  # characters of a term; whatever is longer is no word that anybody will ask for

_CJK = (
    "\u1100-\u11ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Vowel signs and other combining marks belong to the word they stand in, though Python's \w leaves them out.
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc"
    "\u0900-\u0963\u0966-\u0dff\u0e00-\u0e7f\u0e80-\u109f\u1780-\u17d3"
)
# People ask with an emoji for what was said with one; skin tones and joiners are not kept.
_EMOJI = "\u2600-\u27bf\U0001f1e6-\U0001f3fa\U0001f400-\U0001faff"
_ASCII = re.compile(r"[a-z0-9]+")
_RUN = re.compile(rf"[{_CJK}]")
_ANY = re.compile(rf"[{_CJK}]+|(?:[^\W_{_CJK}]|[{_MARKS}])+|[{_EMOJI}]")
_POSSESSIVE = re.compile(r"['’]s\b")

STOP = frozenset(
    """
    a about after all also am an and any are as at be because been before being but by can could d did do does doing
    done down during each for from get got had has have having he her here hers him his how i if in into is it its
    itself just ll m me might mine more most my of off on or other our ours out over own re s shall she should so some
    such t than that the their theirs them then there these they this those through to too until up us ve very was we
    were what when where which while who whom whose why will with would you your yours
    """.split()  # noqa: SIM905 (as a list it fills two screens)
)
"""English words that carry no content in a question, as `words` gives them (unstemmed)."""


def words(text: str) -> list[str]:
    """The words of `text` in order: normalised, case-folded, unstemmed; runs of CJK are left whole."""
    if text.isascii():
        return [word[:LONGEST] for word in _ASCII.findall(_POSSESSIVE.sub("", text.lower()))]
    folded = unicodedata.normalize("NFKC", text).casefold()
    return [word[:LONGEST] if word[0] < "\u1100" else word for word in _ANY.findall(_POSSESSIVE.sub("", folded))]


def terms(text: str) -> list[str]:
    """The terms under which `text` is indexed, in order, repetitions kept; none for a text without letters or emoji."""
    return _stemmed([part for word in words(text) for part in (_grams(word) if _is_cjk(word) else (word,))])


def question_terms(text: str, without: frozenset[str] = frozenset()) -> list[str]:
    """The terms by which `text` is looked up, each once, in order: without stop words and the words in `without`.

    A question made only of such words keeps them all. A run of two or more CJK characters asks for its pairs alone:
    they say more than single characters do.
    """
    asked = words(text)
    kept = [word for word in asked if word not in STOP and word not in without] or asked
    parts = [part for word in kept for part in (_grams(word)[len(word) :] or [word] if _is_cjk(word) else [word])]
    return list(dict.fromkeys(_stemmed(parts)))


def mostly_cjk(text: str) -> bool:
    """Whether at least half of the letters of a text are Han, kana or Hangul."""
    letters = sum(c.isalpha() for c in text)
    return letters > 0 and 2 * len(_RUN.findall(unicodedata.normalize("NFKC", text))) >= letters


def _is_cjk(word: str) -> bool:
    return word[0] >= "\u1100" and _RUN.match(word) is not None


def _grams(run: str) -> list[str]:
    """Every character, then every pair of neighbours."""
    return [*run, *(run[i : i + 2] for i in range(len(run) - 1))]


def _stemmed(found: list[str]) -> list[str]:
    from Stemmer import Stemmer

    # A stemmer must not be shared between threads; making one costs three microseconds.
    stem = Stemmer("porter", 0)
    return [stem.stemWord(part) if part.isascii() and part.isalpha() and len(part) > 2 else part for part in found]
