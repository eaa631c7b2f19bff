"""Word lists of the guard: the few differences in English that change no question."""

from __future__ import annotations

import re

DROPPED = frozenset(["a", "an", "the", "is", "are", "do", "does", "of", "please", "kindly"])
"""Words that may come and go inside a sentence."""

MOVED = frozenset(["is", "are", "do", "does"])
"""Of these, the ones that make a question where they begin a sentence."""

LABELS = frozenset(
    [
        "appendix",
        "article",
        "blood",
        "class",
        "exhibit",
        "factor",
        "figure",
        "grade",
        "group",
        "hepatitis",
        "influenza",
        "level",
        "line",
        "model",
        "option",
        "page",
        "part",
        "plan",
        "point",
        "section",
        "series",
        "size",
        "step",
        "table",
        "team",
        "type",
        "variant",
        "version",
        "vitamin",
        "zone",
    ]
)
"""Words after which an "a" is a letter, and no article."""

NUMBERS = {
    **{
        word: str(number)
        for number, word in enumerate(
            [
                "zero",
                "one",
                "two",
                "three",
                "four",
                "five",
                "six",
                "seven",
                "eight",
                "nine",
                "ten",
                "eleven",
                "twelve",
                "thirteen",
                "fourteen",
                "fifteen",
                "sixteen",
                "seventeen",
                "eighteen",
                "nineteen",
                "twenty",
            ]
        )
    },
    **{
        word: str(tens)
        for tens, word in zip(
            range(30, 100, 10),
            ["thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"],
            strict=True,
        )
    },
    **{
        word: f"{number}{'st' if number == 1 else 'nd' if number == 2 else 'rd' if number == 3 else 'th'}"  # noqa: E501, PLR2004  # English
        for number, word in enumerate(
            [
                "first",
                "second",
                "third",
                "fourth",
                "fifth",
                "sixth",
                "seventh",
                "eighth",
                "ninth",
                "tenth",
            ],
            start=1,
        )
    },
}
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
        (r"how (?:do|can|could) (?:i|one)|how does one", "how to"),
        (r"where (?:do|can|could) (?:i|one)|where does one", "where to"),
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

QUESTION_WORDS = frozenset(
    [
        "what",
        "which",
        "who",
        "whom",
        "whose",
        "when",
        "where",
        "why",
        "how",
        "is",
        "are",
        "am",
        "was",
        "were",
        "do",
        "does",
        "did",
        "can",
        "could",
        "will",
        "would",
        "shall",
        "should",
        "may",
        "might",
        "must",
        "has",
        "have",
        "had",
        "wer",
        "was",
        "wen",
        "wem",
        "wann",
        "wo",
        "warum",
        "wieso",
        "weshalb",
        "wie",
        "welche",
        "welcher",
        "welches",
        "ist",
        "sind",
        "hat",
        "kann",
        "qui",
        "que",
        "quoi",
        "quand",
        "où",
        "pourquoi",
        "comment",
        "combien",
        "quel",
        "quelle",
        "quels",
        "quelles",
        "quién",
        "qué",
        "cuándo",
        "dónde",
        "cómo",
        "cuánto",
        "cuál",
        "chi",
        "che",
        "quando",
        "dove",
        "come",
        "quanto",
        "quem",
        "quando",
        "onde",
    ]
)
"""Words with which a question begins, whether it has a question mark or not."""

AMBIGUOUS = frozenset(
    [
        "amazon",
        "apple",
        "august",
        "bill",
        "black",
        "brown",
        "catholic",
        "china",
        "chip",
        "cook",
        "dick",
        "drew",
        "ford",
        "frank",
        "general",
        "gates",
        "grace",
        "green",
        "hope",
        "it",
        "java",
        "jack",
        "japan",
        "job",
        "jobs",
        "king",
        "lent",
        "low",
        "march",
        "mark",
        "may",
        "mercury",
        "mobile",
        "nice",
        "orange",
        "pat",
        "polish",
        "python",
        "reading",
        "rich",
        "rose",
        "ruby",
        "rust",
        "salt",
        "santa",
        "shell",
        "slack",
        "sol",
        "sun",
        "swift",
        "target",
        "turkey",
        "us",
        "visa",
        "wales",
        "who",
        "will",
        "white",
        "windows",
        "wood",
        "young",
    ]
)
"""Names that are also common words: with and without a capital they are not the same."""
