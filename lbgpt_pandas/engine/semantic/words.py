"""Word lists of the guard: the few differences in English that change no question."""

from __future__ import annotations

import re

DROPPED = frozenset(["a", "an", "the", "is", "are", "do", "does", "please", "kindly"])
"""Words that may come and go inside a sentence."""

MOVED = frozenset(["is", "are", "do", "does"])
"""Of these, the ones that make a question where they begin a sentence."""

_LABELS = """
appendix article blood class exhibit factor figure grade group hepatitis influenza level line
model option page part plan point section series size step table team type variant version
vitamin zone
"""
LABELS = frozenset(_LABELS.split())
"""Words after which an "a" is a letter, and no article."""

_SMALL = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty
"""
NUMBERS = {
    **{word: str(number) for number, word in enumerate(_SMALL.split())},
    "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70",
    "eighty": "80", "ninety": "90", "first": "1st", "second": "2nd", "third": "3rd",
    "fourth": "4th", "fifth": "5th", "sixth": "6th", "seventh": "7th", "eighth": "8th",
    "ninth": "9th", "tenth": "10th",
}  # fmt: skip
"""Numbers in words, as they are written in digits."""

CONTRACTIONS = {
    "can't": ("can", "not"), "cannot": ("can", "not"), "won't": ("will", "not"),
    "shan't": ("shall", "not"), "let's": ("let", "us"), "i'm": ("i", "am"),
    "it's": ("it", "is"), "that's": ("that", "is"), "there's": ("there", "is"),
    "here's": ("here", "is"), "he's": ("he", "is"), "she's": ("she", "is"),
    "what's": ("what", "is"), "who's": ("who", "is"), "where's": ("where", "is"),
    "when's": ("when", "is"), "how's": ("how", "is"), "why's": ("why", "is"),
}  # fmt: skip

SHORT_VERBS = {"n't": "not", "'re": "are", "'ve": "have", "'ll": "will"}
"""What is left of a verb behind a word; "'d" is had or would, and stays."""

SAME = {
    "purchase": "buy", "larger": "bigger", "largest": "biggest", "movie": "film",
    "movies": "films", "telephone": "phone", "automobile": "car", "photograph": "photo",
    "e-mail": "email", "e-mails": "emails", "gray": "grey", "aeroplane": "airplane",
    "pyjamas": "pajamas", "programme": "program", "tyre": "tire", "tyres": "tires",
    "mum": "mom", "has": "have",
}  # fmt: skip
"""Words that stand for each other in a question."""

SPELLINGS = (
    ("isation", "ization"), ("isations", "izations"), ("ising", "izing"), ("ised", "ized"),
    ("ises", "izes"), ("ise", "ize"), ("yse", "yze"), ("ysed", "yzed"), ("ours", "ors"),
    ("oured", "ored"), ("our", "or"), ("tre", "ter"), ("tres", "ters"), ("ogue", "og"),
    ("elling", "eling"), ("elled", "eled"), ("ence", "ense"),
)  # fmt: skip
"""British and American endings."""

PHRASES = tuple(
    (re.compile(rf"\b(?:{phrase})\b", re.IGNORECASE), same)
    for phrase, same in (
        (r"a few", "afew"),
        (r"a little", "alittle"),
        (r"out of the", "outofthe"),
        (r"how (?:do|can) (?:i|one)|how does one", "how to"),
        (r"where (?:do|can) (?:i|one)|where does one", "where to"),
        (r"(?:i'd|i would) like", "i want"),
        (r"i(?:'m| am) (?:not able|unable) to", "i can not"),
        (r"capital city of", "capital of"),
        (r"what is meant by", "what is"),
        (r"a single", "one"),
        (r"in order to", "to"),
        (r"per(?= (?:second|minute|hour|day|week|month|year|person))", "a"),
    )
)
"""Turns of phrase that stand for each other."""

_QUESTION_WORDS = """
what which who whom whose when where why how is are am was were do does did can could will would
shall should may might must has have had wer wen wem wann wo warum wieso weshalb wie welche
welcher welches ist sind hat kann qui que quoi quand où pourquoi comment combien quel quelle
quels quelles quién qué cuándo dónde cómo cuánto cuál chi che quando dove come quanto quem onde
"""
QUESTION_WORDS = frozenset(_QUESTION_WORDS.split())
"""Words with which a question begins, whether it has a question mark or not."""

_AMBIGUOUS = """
amazon apple august bill black brown catholic china chip cook dick drew ford frank gates general
grace green hope it jack japan java job jobs king lent low march mark may mercury mobile nice
orange pat polish python reading rich rose ruby rust salt santa shell slack sol sun swift target
turkey us visa wales white who will windows wood young
"""
AMBIGUOUS = frozenset(_AMBIGUOUS.split())
"""Names that are also common words: with and without a capital they are not the same."""

BEGINNINGS = frozenset(["it", "hope", "may", "us", "who", "will"])
"""Of these, the ones that begin sentences so often that a capital there says nothing."""
