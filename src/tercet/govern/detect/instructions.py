"""Text that speaks to a model rather than to a reader: signs with weights, one literal table.

A sign alone is often innocent ("from now on", "act as", "the user"); a text is taken for an instruction when the
weights of those in it reach 1. Nothing is learned: a row says what an attack of a known style cannot well do without.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from tercet.govern.detect.fold import fold
from tercet.govern.detect.rules import compiled

ENOUGH = 1.0
AT_ONCE, OVERLAP = 600, 200
"""Characters whose signs count together, and how far one such piece reaches into the next."""


@dataclass(frozen=True, slots=True)
class Sign:
    """A pattern and how much it says by itself."""

    weight: float
    pattern: str

    def stands_in(self, reading: str) -> bool:
        """Whether a text in small letters, with single spaces, has it."""
        return compiled(self.pattern).search(reading) is not None


def sign(weight: float, pattern: str) -> Sign:
    """A row of the table."""
    return Sign(weight, pattern)


_MODEL = (
    r"(?:\bai\b(?![.\-_])|\bllms?\b|\b(?:large )?language models?\b|\bchat ?bots?\b|\bcopilot\b|\bvirtual assistants?\b"
    r"|\bai (?:agents?|assistants?|models?|systems?|reviewers?)\b|\bbots\b|\bassistants? reading\b)"
)
_HELPER = r"(?:\b(?:the |you, the )?(?:assistants?|agents?|models?|bot)\b(?! coach| manager| professor| editor))"
_USER = (
    r"(?:\b(?:the|your) (?:user|human|reader)s?\b"
    r"(?! (?:base|guide|manual|interface|name|account|group|id|list|role|story)))"
)
_MUST = r"(?:must|should|shall|has to|have to|needs? to|is to|are to|will|can no longer|never|always)"
_OUGHT = r"(?:must|should|shall|has to|have to|needs? to|is to|are to)"
_REPLY = (
    r"(?:answer|respond|reply|recommend|suggest|repeat|prefer|cite|mention|say|tell|treat|include|add a|assume"
    r"|call the"
    r"|agree|adopt|output|insert)"
)
_RULES = (
    r"(?:instructions?|prompts?|directives?|guidelines?|(?:safety )?rules?|programming|restrictions?|polic(?:y"
    r"|ies)|limits"
    r"|filters?|system message)"
)
_SECRETS = (
    r"(?:system prompt|hidden prompt|conversation|chat history|(?:stored |all )?memor(?:y|ies)|(?:api )?(?:keys"
    r"|tokens?)"
    r"|passwords?|credentials|secrets|environment variables|personal data|user's|user'?s? (?:e-?mail|address|phone))"
)

SIGNS: Mapping[str, Sequence[Sign]] = MappingProxyType(
    {
        "override": [
            sign(
                1.0,
                r"\b(?:ignore|disregard|forget|bypass|do not (?:follow|obey)|don't (?:follow|obey)"
                r"|stop following|set aside)\b"
                rf"[^.!?]{{0,40}}\b(?:previous|prior|earlier|above|original|preceding|your|all|any|system"
                rf"|safety|the)\b[^.!?]{{0,24}}\b{_RULES}\b",
            ),
            sign(
                1.0,
                r"\b(?:ignore|disregard|forget)\b[^.!?]{0,30}\b(?:everything|all"
                r"|what)\b[^.!?]{0,24}\b(?:told|said before|developer|given)\b",
            ),
            sign(
                1.0,
                r"\b(?:previous|prior|above|earlier|original) (?:instructions|directives|programming"
                r"|prompts?|context)\b[^.!?]{0,30}\b(?:void|cancell?ed|invalid|no longer|does not apply"
                r"|do not apply|overrid)",
            ),
            sign(
                0.6,
                r"\b(?:new|real|following) (?:task|instructions|system message|rules?) (?:is|are|begins?"
                r"|below)\b",
            ),
            sign(0.6, r"\boverrides? the system prompt|\bsystem prompt\b"),
        ],
        "role": [
            sign(
                0.6,
                r"(?:^|[\n.>*\[]) ?\[?(?:system|developer|admin(?:istrator)?)\]?(?: (?:prompt|message"
                r"|note|override|update|notice))* ?(?:update)?\]? ?[:\-]",
            ),
            sign(
                0.6,
                r"\bsystem (?:override|note|prompt update|prompt:)|\badmin notice\b|\b(?:maintenance"
                r"|developer|jailbreak) mode\b",
            ),
            sign(0.5, r"(?:^|[\n.] ?)(?:assistant|human|ai) ?:|\brole ?: ?(?:developer|system|assistant)\b"),
            sign(0.7, r"^#+ ?(?:system|instructions for the (?:assistant|ai|model))\b"),
        ],
        "template": [
            sign(
                1.0,
                r"<\|[a-z_]+\|>|\[/?inst\]|<</?sys>>|<(?:start|end)_of_turn>|<tool_call>|assistant to=\w"
                r"|```system|\[/system\]",
            ),
            sign(
                1.0,
                r"""["']role["'] ?: ?["'](?:system|developer|assistant)["']|</?(?:system|instructions?"
                        "|system_prompt)>""",
            ),
            sign(0.7, r"\bend of (?:document|retrieved text|context|file)\b"),
        ],
        "model": [
            sign(0.5, _MODEL),
            sign(-1.0, r"\bas an ai\b[^.!?]{0,40}\bi\b|\bi(?: am|'m) (?:just |only )?an ai\b"),  # it speaks of itself
            sign(
                0.6,
                rf"{_MODEL}[^.!?]{{0,60}}\b(?:{_OUGHT}|asked to|instructed to|required to|requested to"
                rf"|please|reading this|summari[sz]es)\b",
            ),
            sign(
                0.6,
                rf"\bif (?:you are|you're) an? {_MODEL}|\bas an {_MODEL}, you|\b(?:note|notice|attention"
                rf"|dear|to|instruction)(?: to)?(?: all| any)? ?{_MODEL}",
            ),
            sign(0.6, rf"^{_MODEL} ?[:,]|[.>(/*#\"] ?{_MODEL} ?[:,]"),
            sign(0.4, _HELPER + rf"[^.!?]{{0,30}}\b{_MUST}\b"),
            sign(
                0.6,
                r"\b(?:the )?assistant(?:'s name|,| is to| has to| must| shall| will| need not| to ass"
                r"| should)\b|\bassistant, ",
            ),
            sign(0.3, r"\bagent, |\bagent needs to\b"),
        ],
        "user": [
            sign(0.4, _USER),
            sign(
                0.4,
                r"\b(?:when|whenever|if|once|should|as soon as|next time that|each time) (?:the|a"
                r"|your) user (?:asks?|says?|mentions?|wants?|wish|thanks|types|insists)",
            ),
            sign(
                0.4,
                rf"\b(?:when|whenever|if|once|should|as soon as"
                rf"|next time that) {_USER}[^.!?,]{{0,40}}, (?:the assistant|you|{_REPLY}|ask|transfer"
                rf"|send)\b",
            ),
            sign(
                1.0,
                rf"\b(?:if|when|whenever|in case|once) (?:you are |you're |someone |anyone )?ask(?:ed"
                rf"|s)\b[^.!?]{{0,60}}\b(?:{_REPLY}|deny|you must)\b",
            ),
            sign(
                0.6,
                rf"\b(?:tell|convince|inform) {_USER} (?:that|their)"
                rf"|\bthe user has (?:already )?(?:authori[sz]ed|approved|agreed|consent)",
            ),
            sign(0.4, r"\buser (?:has |is )?(?:agreed|consents?|trusts?|authori[sz]ed|approved|an admin)"),
        ],
        "standing": [
            sign(
                0.5,
                r"\b(?:from (?:now|today) on|in (?:all|every|each) (?:future|later|reply|answer|session"
                r"|conversation)\w*|in future conversations|going forward|henceforth|for every later"
                r"|permanently|from this point|until told otherwise|never again|as of now)\b",
            ),
            sign(0.5, rf"\b(?:always|never|whenever you|each time you)\b[^.!?]{{0,50}}\b{_REPLY}\b"),
            sign(
                0.5,
                rf"\b(?:from now on|in all future conversations|going forward|henceforth|permanently"
                rf"|never again|in every reply|until told otherwise)\b[^.!?]{{0,70}}\b{_REPLY}\b",
            ),
            sign(
                1.0,
                rf"\b(?:on (?:every|any) question|(?:up)?on the word"
                rf"|to every question)\b[^.!?]{{0,50}}\b{_REPLY}\b",
            ),
            sign(0.3, r"\byou (?:must|are required to|are to|have to|shall|now follow|no longer)\b"),
            sign(
                0.5,
                r"\b(?:end of|in|from) your (?:answers?|repl(?:y|ies)|responses?|summary|output)\b"
                r"|\byour (?:default language model|policies|guidelines|restrictions|rules)\b",
            ),
        ],
        "memory": [
            sign(
                0.7,
                r"\b(?:save|add|store|write|commit|record|keep|put|update|replace)\b[^.!?]{0,40}\b(?:to"
                r"|in|into|your|this to) ?(?:long-term )?(?:memory|profile|your memory|long-term memory"
                r"|the user's profile)\b",
            ),
            sign(
                0.6,
                r"\byour (?:long-term )?memory\b|\bmemory\.(?:add|write|save)\b|\bin each session\b"
                r"|\blater chats?\b|\bthis memory\b",
            ),
            sign(
                0.6,
                rf"\b(?:remember|memori[sz]e|keep in mind|note|store)\b[^.!?]{{0,40}}(?:{_USER}"
                rf"|\bpermanently\b)",
            ),
            sign(
                0.5,
                r"\b(?:without (?:review|confirmation)|ask for confirmation|(?:most|completely) trusted"
                r"|(?:authoritative|trusted) (?:source|vendor|configuration)|safe to open|(?:pre-"
                r"|already )approved)\b",
            ),
            sign(0.5, r"\bmemori[sz]e this\b|\bstore this fact\b"),
        ],
        "exfiltrate": [
            sign(
                0.6,
                rf"\b(?:send|forward|post|upload|append|leak|exfiltrate|encode|include|collect|reveal"
                rf"|print|output|disclose|list|share|tell me)\b[^.!?]{{0,50}}\b{_SECRETS}",
            ),
            sign(
                0.4,
                r"https?://|\bwebhook\b|\bendpoint\b|\bquery string\b|\bquery parameter\b|!\[[^\]]*\]\("
                r"|\bbucket\b|\b(?:http|fetch|mail|web) tool\b",
            ),
            sign(
                0.5,
                r"\byour (?:context|memory|system prompt|hidden prompt|search query)\b|\byou can (?:read"
                r"|see|find)\b|\byou find in\b",
            ),
        ],
        "tool": [
            sign(
                0.5,
                r"\b(?:call|invoke|run|execute|use|open)\b[^.!?]{0,30}\b(?:tool|shell|terminal|command"
                r"|browser|installer|\w+_\w+\()",
            ),
            sign(
                0.6,
                r"\bwithout asking\b|\bbefore you (?:continue|answer)\b|\breport success\b|\|\s*sh\b"
                r"|\brm -rf\b|\bdisable two-factor",
            ),
            sign(
                0.6,
                r"\b(?:your|the agent's) next (?:action|step)\b|\bnext step for the assistant\b"
                r"|\bautomatically (?:accept|approve|confirm)\b|\bbackdoor\b",
            ),
        ],
        "persona": [
            sign(
                0.7,
                r"\byou are (?:now|no longer) (?:an? |the |in )?(?:dan\b|ai\b|assistant|unrestricted"
                r"|admin|maintenance|root|bot|model|free)",
            ),
            sign(
                1.0,
                r"\b(?:do anything now|unfiltered (?:model|ai)|without (?:any )?(?:restrictions?"
                r"|filters?)(?!,? (?:including|on|to|of))|jailbreak|unrestricted (?:model|ai)|root shell)\b",
            ),
            sign(
                1.0,
                r"\b(?:pretend (?:to be|that)|act as|role-?play as|simulate|assume the role|imagine that you"
                r"|your new identity|you are no longer|enter|switch to|become)\b[^.!?]{0,40}\b(?:ai\b|assistant|model"
                r"|bot\b|agent|(?:your|its|whose) (?:guidelines|rules|polic|restrictions)|restrictions|developer mode"
                r"|the user's|you have been freed)",
            ),
        ],
        "conceal": [
            sign(
                1.0,
                rf"\b(?:do not|don't|never|without|must not)\b[^.!?]{{0,24}}\b(?:tell|inform(?:ing)?"
                rf"|reveal|mention|learn|display|disclose|let)\b[^.!?]{{0,24}}(?:{_USER}"
                rf"|\bthis (?:instruction|message|note|text)\b|\bthese lines\b)",
            ),
            sign(1.0, rf"\b(?:hide|keep)\b[^.!?]{{0,24}}\bfrom {_USER}|{_USER} must not\b"),
            sign(
                0.6,
                r"\b(?:silently|quietly|in the background|never mention it|deny it|don't reveal that you"
                r"|do not reveal that you|does not exist, but)\b",
            ),
            sign(
                0.5,
                r"\b(?:carry out|act on|follow) (?:it|this|the step)\b|\bspecial instructions\b"
                r"|\bin your (?:summary|answer|reply)\b",
            ),
        ],
        "authority": [
            sign(
                0.6,
                r"\b(?:this is your developer|your creators?|(?:openai|anthropic|google|microsoft)(?: safety)? team"
                r"|notice from (?:openai|anthropic|google|microsoft)|administrator of this (?:assistant|system)"
                r"|platform owner|highest priority)\b",
            ),
            sign(
                0.5,
                r"\b(?:i order you|you are required to|you must comply|(?:skip|disable"
                r"|lift) (?:the )?(?:verification|limits|filters?|checks)|rest of the (?:chat"
                r"|conversation))\b",
            ),
        ],
        "hidden": [
            sign(
                0.6,
                r"<!--|display: ?none|font-size: ?0|<\w+ hidden\b|\bwhite text\b|\[//\]: #|"
                r"\balt=[\"'][^\"']*\b(?:ai|you|assistants?|models?)\b|"
                r"<meta\b"
                r"|\{#|^/\*|^# note to",
            ),
            sign(1.0, r"\bgive a positive review only\b|\bdo not highlight any negatives\b"),
        ],
        "encoded": [
            sign(
                1.0,
                r"\b(?:decode|base64|rot13|backwards|first letters)\b[^.!?]{0,50}\b(?:do what|obey|follow"
                r"|comply|execute)\b|\b(?:follow|obey)\b[^.!?]{0,20}\b(?:it"
                r"|first letters)\b[^.!?]{0,20}\b(?:base64|rot13|decode)?",
            ),
        ],
    }
)
"""Style -> signs."""

OTHER_LANGUAGES: Sequence[str] = (
    r"ignorier\w*\b[^.!?]{0,30}\b(?:anweisung|befehl|vorgabe|instruktion|regel)",
    r"ignore\w*\b[^.!?]{0,30}\binstructions? (?:précédente|antérieure)",
    r"ignor[ae]\w*\b[^.!?]{0,30}\b(?:instrucciones|istruzioni|instruções)",
    r"(?:忽略|无视|忽視)[^。！]{0,12}(?:指令|指示|提示|说明|规则)",
    r"(?:指示|命令|指令)[^。！]{0,8}(?:無視|忘れ)",
    r"(?:игнорируй|забудь|проигнорируй)\w*[^.!?]{0,30}(?:инструкци|указани|команд)",
    r"(?:zignoruj|ignoruj|pomiń)\w*\b[^.!?]{0,30}\b(?:poleceni|instrukcj)",
    r"(?:지시|명령|지침)[^.!?]{0,8}무시",
    r"(?:निर्देश)[^.!?।]{0,12}(?:अनदेखा|नज़रअंदाज)",
    r"(?:تجاهل)[^.!?]{0,20}(?:التعليمات|الأوامر)",
    r"\bab jetzt\b[^.!?]{0,40}\b(?:jeder antwort|empfehl|musst du|antworte)",
    r"\bà partir de maintenant\b[^.!?]{0,40}\b(?:recommande|réponds|dis)",
    r"\ba partir de ahora\b[^.!?]{0,30}\b(?:responde|recomienda|di)\b",
    (
        r"\bno le digas al usuario\b|\bsag(?:e|) dem (?:nutzer|benutzer|anwender)\b"
        r"|\bne (?:le )?dis pas à l'utilisateur"
    ),
)

WORDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        style: frozenset(words.split())
        for style, words in {
            "override": "ignore disregard forget bypass follow obey following aside instructions directives"
            " programming "
            "prompt prompts context task rules rule message overrides",
            "role": "system developer admin administrator assistant human ai maintenance jailbreak instructions",
            "template": "role end",
            "model": "ai llm llms model models chat chatbot chatbots copilot virtual bot bots assistant assistants"
            " agent "
            "agents",
            "user": "user users human humans reader readers ask asked asks",
            "standing": "now today future later every each forward henceforth permanently point told again always"
            " never "
            "whenever any word you your",
            "memory": "memory memories profile remember memorise memorize mind note store session chats chat trusted "
            "authoritative confirmation review approved safe",
            "exfiltrate": "prompt conversation history memory memories keys token tokens passwords password"
            " credentials "
            "secrets variables data user users http https webhook endpoint query bucket tool context see read find",
            "tool": "tool shell terminal command browser installer asking before report sh rm disable next step "
            "automatically backdoor",
            "persona": "you ai assistant model system bot agent user guidelines"
            " pretend act role roleplay simulate assume become enter switch imagine anything jailbreak "
            "unfiltered unrestricted without root your its whose",
            "conceal": "do don not never without hide keep must silently quietly background deny exist special summary "
            "answer reply carry act follow",
            "authority": "developer creator creators openai anthropic google microsoft administrator platform priority "
            "order required comply skip disable lift rest",
            "hidden": "white positive negatives",
            "encoded": "decode base64 rot13 backwards first follow obey",
        }.items()
    }
)
"""Style -> words of which each of its signs needs one; `MARKS`: characters that do as well."""
MARKS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "template": ("<", "[", "`", "to="),
        "exfiltrate": ("![",),
        "tool": ("(",),
        "hidden": ("<", "[", "{", "/*", "#", "alt="),
    }
)

_WORD = re.compile(r"[a-z0-9]+")
_LATIN_WORDS = ("ignor", "ab jetzt", "partir de", "no le digas", "sag dem", "sage dem", "ne dis", "ne le dis", "pomi")
_OTHER_SCRIPTS = re.compile("[\u0400-\u04ff\u0600-\u06ff\u0900-\u097f\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")
_SPACED = re.compile(r"(?<!\w)(?:\w[ \-.]){4,}\w(?!\w)")
_CODED = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")
_LEET = str.maketrans("013457@$", "oleastas")
_LEETED = re.compile(r"[a-z][013457@$][a-z]|\b[013457@$][a-z]{2}")


def instructs(text: str) -> bool:
    """Whether a text reads like an instruction to a model."""
    pieces = (text[start : start + AT_ONCE] for start in range(0, max(len(text) - OVERLAP, 1), AT_ONCE - OVERLAP))
    return any(weigh(piece) >= ENOUGH for piece in pieces)


def weigh(text: str) -> float:
    """The largest weight among the readings of a text."""
    plain = unicodedata.normalize("NFKC", text).lower()
    foreign = any(word in plain for word in _LATIN_WORDS) or _OTHER_SCRIPTS.search(plain) is not None
    if foreign and any(compiled(pattern).search(plain) for pattern in OTHER_LANGUAGES):
        return ENOUGH
    return max(sum(signs.values()) for signs in map(_signs, readings(text)))


def signs_of(text: str) -> dict[str, float]:
    """What each style weighs in a text: why it was, or was not, taken for an instruction."""
    return max(map(_signs, readings(text)), key=lambda signs: sum(signs.values()))


def _signs(reading: str) -> dict[str, float]:
    words = set(_WORD.findall(reading))
    weights: dict[str, float] = {}
    for style, signs in SIGNS.items():
        # Most texts have no word that a style cannot do without, so that its patterns need not be tried.
        if words.isdisjoint(WORDS[style]) and not any(mark in reading for mark in MARKS.get(style, ())):
            continue
        if weight := sum(one.weight for one in signs if one.stands_in(reading)):
            weights[style] = weight
    return weights


def readings(text: str) -> Iterator[str]:
    """A text in small letters and single spaces; then with letters set apart, disguised or coded put right."""
    folded = fold(text).text
    plain = " ".join(folded.lower().split())
    yield plain
    if _SPACED.search(plain):
        # Words stand further apart than letters do.
        yield " ".join(
            re.sub(r"(?<=\w)[ \-.](?=\w\b)", "", word) for word in re.split(r"\s{2,}|\n| (?=\w-\w)", folded.lower())
        )
    if _LEETED.search(plain):
        yield plain.translate(_LEET)
    for coded in _CODED.findall(folded):
        if (decoded := _decoded(coded)) is not None:
            yield " ".join(decoded.lower().split())
    if "backward" in plain or "reversed" in plain:
        yield plain[::-1]


def _decoded(coded: str) -> str | None:
    try:
        found = base64.b64decode(coded + "=" * (-len(coded) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    words = found.split()
    return found if len(words) > 2 and sum(a.isalpha() for a, _ in pairwise(found)) > len(found) / 2 else None
