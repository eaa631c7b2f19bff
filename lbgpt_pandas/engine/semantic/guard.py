"""Facts that two texts must have in common before one may get the other's answer.

Vectors of texts that differ in one number, one name, one "not" or in the order of two words are
nearly the same. So a near text is taken for the same question only if it has the same words in
the same order after what changes no question was evened out: case, punctuation, articles,
contractions, numbers in words, British and American spelling, polite openings, a few synonyms.
Whatever is in doubt is a difference, because a missed hit costs a call and a false one a wrong
answer.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache

from lbgpt_pandas.engine.semantic.words import (
    AMBIGUOUS,
    BEGINNINGS,
    CONTRACTIONS,
    DROPPED,
    LABELS,
    MOVED,
    NUMBERS,
    PHRASES,
    QUESTION_WORDS,
    SAME,
    SHORT_VERBS,
    SPELLINGS,
)

MOST_CHARACTERS = 20_000
KEPT_TEXTS = 4_096
LONGEST_CLOSER = 24
LONGEST_UNIT = 3

_QUOTED = re.compile(r"\"([^\"]+)\"|[“„]([^“”]+)[“”]|«([^»]+)»|`([^`]+)`|(?<!\w)'([^'\n]+)'(?!\w)")
_TOKEN = re.compile(
    r"""
    (?P<exact>
        (?:https?://|www\.)\S+[^\s.,;:!?)\]}"'»”]           # addresses
      | [\w.+-]{1,64}@[\w-]{1,64}(?:\.\w+)+
      | (?<!\S)--?[^\W\d][\w-]*                               # options of a command
    )
    | (?P<number> \d+(?:st|nd|rd|th)\b | (?<![\w)\]])[+-]?\d+(?:[.,:/-]\d+)* | \d+ )
    | (?P<word> \w+(?:['.\-_/&+#@]\w+)*[+#]* )
    | (?P<sign> [.,;:](?=\w) | !(?=[\w(=]) | [^\s\w.,;:!'"“”„«»`…–—] )
    """,
    re.VERBOSE,
)
_MINUS = re.compile(r"(?<![\w)\]])[–−](?=\d)")  # dashes that are written for a minus
_COMMA = re.compile(r"\b(no|yes|not|never),", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SENTENCE_END = re.compile(r"[.!?:\n]")
_INDENT = re.compile(r"^[ \t]*(?=\S)", re.MULTILINE)
_LETTERS = re.compile(r"[^\W\d_]+")
_QUESTION = r"(?=[\s,:]+(?:what|why|how|who|whom|whose|when|where|which|if|whether)\b)"
_OPENER = re.compile(
    rf"""\s*(?:
        (?: hi | hello | hey | good\ morning ) (?= [\s,.!]*[,.!] )
      | (?: please | kindly ) \b
      | (?: can | could | would | will ) \ you (?: \ please )? \b
        (?= \s+ (?: tell | explain | show | give | translate | summari[sz]e | write | list ) \b )
      | (?: do\ you\ know | i\ wonder | explain | tell\ me | let\ me\ know
          | i\ (?: want | need ) \ to\ know ) {_QUESTION}
      | tell\ me (?= \s*[,:] )
    ) [\s,.:!]*""",
    re.IGNORECASE | re.VERBOSE,
)
_CLOSER = re.compile(
    r"(?:\s*[,.!?]\s*(?:thanks|thank you|thx)|[\s,]+please)\s*([.!?]*)\s*$", re.IGNORECASE
)


@dataclass(slots=True)
class _Facts:
    """What one text says, evened out."""

    words: list[str] = field(default_factory=list)
    openings: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    capitals: set[str] = field(default_factory=set)
    quoted: list[str] = field(default_factory=list)
    indents: list[str] = field(default_factory=list)
    beginnings: list[str] = field(default_factory=list)
    alone: str = ""
    asks: bool = False
    has_case: bool = True

    def knows(self, names: set[str]) -> bool:
        """Tell whether `names` are written as names here, or may be: nothing is, or no doubt."""
        unsure = names - self.names - self.openings
        return not unsure or (not self.has_case and AMBIGUOUS.isdisjoint(unsure))


def same_facts(a: str, b: str) -> bool:
    """Tell whether two texts agree in all that vectors do not tell apart.

    Parameters
    ----------
    a, b : str
        The texts; their order does not matter.

    Returns
    -------
    bool
        False for an empty text and in case of doubt.

    Examples
    --------
    >>> same_facts("What is the capital of France?", "what's the capital of france")
    True
    >>> same_facts("Is it safe?", "Is it not safe?"), same_facts("10 USD", "100 USD")
    (False, False)
    """
    if not a.strip() or not b.strip():
        return False
    if a == b:
        return True
    if max(len(a), len(b)) > MOST_CHARACTERS:
        return False
    one, other = _facts(a), _facts(b)
    return (
        bool(one.words)
        and one.words == other.words
        and one.asks == other.asks
        and one.capitals == other.capitals
        and one.quoted == other.quoted
        and one.indents == other.indents
        and one.beginnings == other.beginnings
        and one.alone == other.alone
        and one.knows(other.names)
        and other.knows(one.names)
    )


@lru_cache(maxsize=KEPT_TEXTS)
def _facts(text: str) -> _Facts:
    text = unicodedata.normalize("NFC", text).replace("’", "'").strip()
    text = _COMMA.sub(r"\1 comma", _MINUS.sub("-", text))
    facts = _Facts(quoted=[next(filter(None, found)) for found in _QUOTED.findall(text)])
    indents = _INDENT.findall(text)
    facts.indents = indents if any(indents) else []
    bare, was_asked = _bare(text)
    if bare.isupper() and len(_LETTERS.findall(bare)) > 1:
        bare = bare.lower()  # shouted: its capitals say nothing
    facts.has_case = bare != bare.lower()
    for phrase, same in PHRASES:
        bare = phrase.sub(same, bare)
    ends, end = 0, len(bare.rstrip(" .!?\"'”»"))
    for match in _TOKEN.finditer(bare):
        begins = not ends or bool(_SENTENCE_END.search(bare, ends, match.start()))
        if match.group() != "?" or match.end() < end:
            _take(facts, match, begins=begins)
        ends = match.end()
    if len(facts.words) == 1:
        # Nothing beside it says whether a lone word is a name.
        facts.alone = bare.strip(" .,!?;:\"'")
    first = re.match(r"\W*(\w*)", bare.lower())
    facts.asks = (first is not None and first.group(1) in QUESTION_WORDS) or (
        bare.rstrip(" !\"'”»").endswith("?") and not was_asked
    )
    return facts


def _bare(text: str) -> tuple[str, bool]:
    """Take polite openings and thanks away; tell whether they asked ("could you ...?")."""
    bare, was_asked = text, False
    while found := _OPENER.match(bare):
        was_asked = was_asked or " you" in found.group().lower()
        bare = bare[found.end() :]
    bare = bare[:-LONGEST_CLOSER] + _CLOSER.sub(r"\1", bare[-LONGEST_CLOSER:])
    return (bare, was_asked) if bare.strip(" .!?") else (text, False)


def _take(facts: _Facts, match: re.Match[str], *, begins: bool) -> None:
    token = match.group()
    match match.lastgroup:
        case "number":
            facts.words.append(_THOUSANDS.sub("", token))
        case "word":
            _take_word(facts, token, begins=begins)
        case _:
            facts.words.append(token)


def _take_word(facts: _Facts, written: str, *, begins: bool) -> None:
    rest = written[1:]
    if written.isupper() and written != "I" and not (begins and written == "A"):
        facts.capitals.add(written)
    elif _is_code(written, rest):
        facts.words.append(written)
        return
    word = written.lower()
    is_name = written[0].isupper() and word != "i" and not word.startswith("i'")
    if is_name:
        (facts.openings if begins else facts.names).add(word)
    if begins and word in AMBIGUOUS and word not in BEGINNINGS:
        facts.beginnings.append(written)
    if facts.words and len(written) <= LONGEST_UNIT and facts.words[-1][-1:].isdigit():
        facts.words.append(written)  # a unit, such as mg and Mg
        return
    for at, part in enumerate(_expanded(word)):
        if written in facts.capitals or not _is_dropped(facts, part, begins=begins and not at):
            facts.words.append(part if is_name and not begins else _evened(part))


def _is_code(token: str, rest: str) -> bool:
    has_mixed_case = rest != rest.lower() and token != token.upper()
    return has_mixed_case or not token.replace("'", "").replace("-", "").isalpha()


def _is_dropped(facts: _Facts, word: str, *, begins: bool) -> bool:
    if word not in DROPPED or (begins and word in MOVED):
        return False
    return not (word == "a" and facts.words and facts.words[-1] in LABELS)


def _expanded(word: str) -> tuple[str, ...]:
    if word in CONTRACTIONS:
        return CONTRACTIONS[word]
    for ending, verb in SHORT_VERBS.items():
        if word.endswith(ending):
            return word.removesuffix(ending), verb
    return (word,)


def _evened(word: str) -> str:
    word = SAME.get(word, NUMBERS.get(word, word))
    for british, american in SPELLINGS:
        if word.endswith(british) and len(word) > len(british) + 1:
            return word.removesuffix(british) + american
    return word
