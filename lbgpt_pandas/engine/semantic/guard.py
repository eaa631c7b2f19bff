"""Facts that two texts must have in common before one may get the other's answer.

Vectors of texts that differ in one number, one name, one "not" or in the order of two words are
nearly the same. So a near text is taken for the same question only if it has the same words in
the same order, with pauses at the same places, after what changes no question was evened out:
case where it names nothing, articles, contractions, numbers in words, British and American
spelling, polite openings, a few synonyms.
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
    BEFORE_SYMBOLS,
    CONTRACTIONS,
    DROPPED,
    LABELS,
    LEADING,
    MOVED,
    NUMBERS,
    PHRASES,
    PLAIN,
    QUESTION_WORDS,
    SAME,
    SHORT_VERBS,
    SHOUTED,
    SMALL_WORDS,
    SPELLINGS,
)

MOST_CHARACTERS = 20_000
KEPT_TEXTS = 4_096
LONGEST_CLOSER = 24
LONGEST_UNIT = 3
LONGEST_ABBREVIATION = 3
LONGEST_SYMBOL = 2
LEAST_SHOUTED_WORDS = 4

_QUOTED = re.compile(r"\"([^\"]+)\"|[“„]([^“”]+)[“”]|«([^»]+)»|`([^`]+)`|(?<!\w)'([^'\n]+)'(?!\w)")
_TOKEN = re.compile(
    r"""
    (?P<exact>
        (?:https?://|www\.)\S+[^\s.,;:!?)\]}"'»”]           # addresses
      | [\w.+-]{1,64}@[\w-]{1,64}(?:\.\w+)+
      | (?<!\S)--?[^\W\d][\w-]*                               # options of a command
      | [:;=]['-]?[()DPp/\\|*](?!\w)                           # faces
    )
    | (?P<number> \d+(?:st|nd|rd|th)\b | (?<![\w)\]])[+-]?\d+(?:[.,:/-]\d+)* | \d+ )
    | (?P<word> \w+(?:['.\-_/&+#@]\w+)*[+#]* )
    | (?P<sign> [.,;:](?=\w) | !(?=[\w(=]) | (?<=[\d)])! | (?<=\b[^\W\d_])!   # 5! and n!
      | (?<=\d)['"](?!\w) | [^\s\w.,;:!'"“”„«»`…–—] )
    """,
    re.VERBOSE,
)
_MINUS = re.compile(r"(?<![\w)\]])[–−](?=\d)")  # dashes that are written for a minus
_DASH = re.compile(r"(?<=\d)(\s*)[–—−](?=\s*\d)")
_PAUSE = re.compile(r"\n|[,.;:!…–—](?!.*\n)", re.DOTALL)
_NEXT_NAME = re.compile(r"[ \t]+[\"'“„«]?[^\W\d_](?=[^\W\d_])")
_GLUE = frozenset(r"/\$@#%&=<>{}[~^|*+_.:;,-")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SENTENCE_END = re.compile(r"[.!?:\n]")
_INDENT = re.compile(r"^[ \t]*(?=\S)", re.MULTILINE)
_WORD = re.compile(r"[^\W\d_][\w'-]*")
_SPOKEN = re.compile(
    r"(?P<before>\d\s*)?(?<![\w.\-/&+#@])[^\W\d_']+(?:'[^\W\d_]+)*(?![\w\-/&+#@]|\.\w)"
)
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
    is_title: bool = False
    asks: bool = False
    has_case: bool = True

    def knows(self, names: set[str]) -> bool:
        """Tell whether `names` are written as names here, or may be: nothing is, or no doubt."""
        unsure = names - self.names - self.openings
        return not unsure or (not self.has_case and not any(map(_is_ambiguous, unsure)))


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
        and one.is_title == other.is_title
        and one.knows(other.names)
        and other.knows(one.names)
    )


@lru_cache(maxsize=KEPT_TEXTS)
def _facts(text: str) -> _Facts:
    text = unicodedata.normalize("NFC", text).replace("’", "'").strip()
    text = _MINUS.sub("-", _DASH.sub(r"\1-", text))
    facts = _Facts(quoted=[next(filter(None, found)) for found in _QUOTED.findall(text)])
    indents = _INDENT.findall(text)
    facts.indents = indents if any(indents) else []
    bare, was_asked = _bare(text)
    is_shouted = _is_shouted(bare)
    if is_shouted:
        bare = _SPOKEN.sub(_spoken, bare)
    facts.has_case = not is_shouted and bare != bare.lower()
    for phrase, same in PHRASES:
        bare = phrase.sub(same, bare)
    facts.is_title = _is_title(bare)
    _take_all(facts, bare)
    if len(facts.words) == 1:
        # Nothing beside it says whether a lone word is a name.
        facts.alone = bare.strip(" .,!?;:\"'")
    first = re.match(r"\W*(\w*)", bare.lower())
    facts.asks = (first is not None and first.group(1) in QUESTION_WORDS) or (
        bare.rstrip(" !\"'”»").endswith("?") and not was_asked
    )
    return facts


def _take_all(facts: _Facts, bare: str) -> None:
    ends, end, before = 0, len(bare.rstrip(" .!?\"'”»")), ""
    for match in _TOKEN.finditer(bare):
        written, between = match.group(), bare[ends : match.start()]
        begins = not ends or bool(_SENTENCE_END.search(between))
        if written != "?" or match.end() < end:
            if facts.words and (pause := _PAUSE.search(between)):
                facts.words.append("\n" if pause.group() == "\n" else ",")
            is_glued = match.start() > 0 and bare[match.start() - 1] in _GLUE
            is_symbol = written in ("i", "I") and before in BEFORE_SYMBOLS
            if match.lastgroup == "word" and not is_glued and not is_symbol:
                _take_word(facts, written, begins=begins, leads=_leads(bare, match.end()))
            else:
                is_number = match.lastgroup == "number"
                facts.words.append(_THOUSANDS.sub("", written) if is_number else written)
        ends, before = match.end(), written.lower()


def _leads(bare: str, end: int) -> bool:
    """Tell whether a word with a capital comes next, which is no abbreviation."""
    found = _NEXT_NAME.match(bare, end)
    if found is None:
        return False
    first, second = bare[found.end() - 1], bare[found.end()]
    return first.isupper() and not second.isupper()


def _is_ambiguous(name: str) -> bool:
    """Tell whether a word may be a name or not, so that only its case says which."""
    return name in AMBIGUOUS or name in PLAIN or len(name) <= LONGEST_SYMBOL


def _is_shouted(bare: str) -> bool:
    """Tell whether all is written in capitals, and is enough not to be a row of abbreviations."""
    if not bare.isupper():
        return False
    words = [word.lower() for word in _WORD.findall(bare)]
    return len(words) >= LEAST_SHOUTED_WORDS or (
        len(words) > 1 and all(word in PLAIN and len(word) > LONGEST_ABBREVIATION for word in words)
    )


def _spoken(shouted: re.Match[str]) -> str:
    """Lower a shouted word that is neither an abbreviation, a unit, nor a name by its case."""
    word = shouted.group().lower()
    is_short = len(word) <= LONGEST_ABBREVIATION and word not in SHOUTED
    is_kept = is_short or shouted.group("before") or word in AMBIGUOUS
    return shouted.group() if is_kept else word


def _is_title(bare: str) -> bool:
    """Tell whether each word has a capital, as in the title of a book."""
    words = [word for word in _WORD.findall(bare) if word.lower() not in SMALL_WORDS]
    return len(words) > 1 and all(word[0].isupper() for word in words)


def _bare(text: str) -> tuple[str, bool]:
    """Take polite openings and thanks away; tell whether they asked ("could you ...?")."""
    bare, was_asked = text, False
    while found := _OPENER.match(bare):
        was_asked = was_asked or " you" in found.group().lower()
        bare = bare[found.end() :]
    bare = bare[:-LONGEST_CLOSER] + _CLOSER.sub(r"\1", bare[-LONGEST_CLOSER:])
    return (bare, was_asked) if bare.strip(" .!?") else (text, False)


def _take_word(facts: _Facts, written: str, *, begins: bool, leads: bool) -> None:
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
    is_plain = word in PLAIN or _expanded(word)[0] in PLAIN
    if begins and (not is_plain or (leads and (word not in LEADING or word in AMBIGUOUS))):
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
