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

_LEADING = """
about after also although and are as ask at based because before between but by calculate check
choose compare convert correct could count create dear describe did do does during explain extract
find following for from generate given how i'd i'll i'm i've identify if improve in into is let's
list make of on one over please provide read rewrite say send should show since so summarise
summarize tell than then to today tomorrow translate under until using was were what when where
which while why with without would write yes yesterday
an auf aus bei bitte durch für gegen im mit nach ohne seit von zu zum zur au aux avec dans pour
sans con de en para por sin
"""
LEADING = frozenset(_LEADING.split()) | QUESTION_WORDS
"""Words that a name may follow at the beginning of a text without being a part of it."""

_PLAIN = """
a above again all almost already another any anyone anything anyway arrived awful bad best better
both bought broken cancel cancelled can't cannot cheap complete completely customer damaged
delivered delivery different doesn't don't each easy either enough even every everyone everything
excellent fast few finally first full getting give good got great had half happy has hasn't have
haven't he hello help her here hi highly hope his however i instead isn't it it's its just last
late later looking love lovely many maybe more most much may must my need needs neither never new
no none not nothing now nowhere often ok okay only order ordered other our package packaging
parcel pages perfect perhaps poor poorly price problem product quality quite rather received
recommended refund return same second several shall she some someone something sometimes soon
sorry still such terrible thank thanks that that's the their them there there's these they they're
thing things this those three too two unfortunately unless us useless very wait waiting want was
we we're we've well whole whose won't worked working works worse worst wrong yet you you're your
das dein deine dem den der des dieser dieses du ein eine einen er es ich ist kein keine mein meine
nein nicht noch schon sehr und unser unsere vielen wann wir c'est ce ces cette elle il ils je la
le les ma mes mon nous tu un une vous el ella ellos gracias los mi mis una yo
"""
PLAIN = frozenset(_PLAIN.split()) | LEADING
"""Words that are no names, so that a capital at the beginning of a sentence says nothing."""

_SMALL_WORDS = "a an and as at but by for from in nor of on or the to via with"
SMALL_WORDS = frozenset(_SMALL_WORDS.split())
"""Words that are written small in titles."""

_SHOUTED = """
a all and any are be but by did few for get got had has her his how i if is its let may my new no
not of one our out own see she the to too two was way we why yes yet you
"""
SHOUTED = frozenset(_SHOUTED.split())
"""Of words of up to three letters, those that are no abbreviation where everything is shouted."""

BEFORE_SYMBOLS = frozenset(
    ["by", "for", "index", "is", "let", "letter", "of", "set", "than", "variable"]
)
"""Words after which an "i" is a symbol, and not who speaks."""

_AMBIGUOUS = """
access aids alphabet amazon amber angel angular apple arm art august azure baker ball bank banks
baptist barking base basic bath battle bean beetle bell best bill bird bishop black bliss block
bloom blues bond bourbon brown buck buffalo burger bury bush buy cal calorie calories carpenter
carter case cash catholic cell chad champagne chance chase chile china chip chips christian chrome
church cliff cologne colon congress conservative cook cooper coral cork crown crystal dale dart
date dawn day deal dean delta democrat democratic devil dick discord dove drake dream drew earth
east echo economist eden edge elder elm epic essence eve excel express eye fair faith falls father
field fields fiesta fire fisher flask flint focus ford forest fort fortune fowler fox frank fuller
galaxy gap gardener gate gates gay gem general georgia ginger glen go god golf good gore grace
grant graves gray green grey guardian guinea hague hall hardy harry heath heather hill hilt holly
hook hope house howl hull hunt hunter husky independent indian internet iris it ivy jack jaguar
japan java jersey jewel job jobs joker jordan joy judge kay key kindle king kings knight labour
lamb lambda lance lane lark law lent liberal life lily lime limp lion little long lord love low
lynch mace major mali mars march marc mark marks marsh mason mass max may mead meta miles mill
miller mini mint mirror mist mobile moon moor moose more morning moss mustang nancy native nature
nest newton nice nick niger north notion office olive opera oracle orange orthodox outlook page
painter palm pandas panther park parker pat peace peak pearl peck peg pelican penny people perry
phoenix pierce pine pixel plum pole poles polish polo poor pope porter post potter pound pounds
powers president press price priest prince puma python queen rails randy ray react reading real
redwood reform renaissance republic republican revolution rich ring river rivers rob robin rock
rocket rocky rod rose ruby rugby rush rust rusty safari sage sale salt sand sandwich sandy santa
saturn scale scot scripture senate sharp shell signal skipper sky slack sloan smart smith snow
social sol sole son south spark spears split spring sprint square stable star state states steam
steel stem stern still stone storm stormy strange street stripe sue summer sun sunny surface swan
swatch sweet swift swiss switch tailor target taylor teams temple tide tiger time times titan title
tours tower town trinity trip trump turkey turner union unity us valve vault victor violet virgin
visa wade walker wall ward warden waters way web weaver wells west whale white who wild will
windows winter wired wise wolf wonder wood woods woody word world young zoom
arme armen dank essen fliegen gefangene genossen gut ihnen ihr ihre ihrem ihren ihrer ihres kosten
laute leben lesen liebe macht mal morgen rasen recht regen reisen sie spinnen steuer trotz wagen
weg wegen würde würden
kb mb gb tb kwh mwh
"""
AMBIGUOUS = frozenset(_AMBIGUOUS.split())
"""Names that are also common words: with and without a capital they are not the same."""
