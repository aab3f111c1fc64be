"""What a full stop means after the abbreviations of English news text.

A stop after an abbreviation ends a sentence or not by what the abbreviation is and by what
follows it; the kinds below say how. All entries are lower case and lack their last stop. Words
that are also ordinary English ("no", "sat", "miss", "mar") sit in kinds that ask for more than
the word itself.
"""

from collections.abc import Mapping
from enum import Enum, auto


class Kind(Enum):
    """How an abbreviation behaves before white space and something that could start a sentence."""

    TITLE = auto()
    """Stands before a name: never ends a sentence."""
    NEVER = auto()
    """Stands before what it introduces, whatever that is ("e.g.", "vs.")."""
    TAIL = auto()
    """Ends a sentence only before a word that starts sentences ("Inc. The", "Wall St. He")."""
    STATE = auto()
    """Like TAIL after "City, "; otherwise an ordinary word ("Biloxi, Miss.")."""
    NUMBER = auto()
    """An abbreviation only before a number ("No. 5", "Art. IV")."""
    MONTH = auto()
    """An abbreviation before a number ("Sept. 3"), where it is not itself lower case."""
    DAY = auto()
    """An abbreviation before a number or a month ("Mon. Feb. 4")."""
    CLOCK = auto()
    """Does not end a sentence before a weekday, month or time zone ("10 a.m. Monday")."""


_WORDS = {
    Kind.TITLE: """
        adm amb atty brig capt cdr cmdr cmdt col comdr cpl dr ens fr gen gov govs hon insp lt ltc
        ltg maj messrs mme mmes mr mrs ms msgr mt pfc pres prof profs pvt rep reps ret rev revs rt
        sen sens sgt ste supt sqn wg
        adv cllr const dep det h.e h.h h.m h.r.h lieut mohd pte retd secy shri smt spc sra srta
    """,
    Kind.NEVER: "a.k.a aka approx cf e.g eg i.e ie viz vs v incl resp",
    Kind.TAIL: """
        admin al assn assoc asst ave bldg blvd bros calif co comm conn corp cos ct dept dist div
        esq est exec fla ft govt hwy inc inst intl jr ltd mfg minn mts nat natl okla ph.d plc prov
        pt pty rd rte sask sec sr st tenn univ wis
    """,
    Kind.STATE: """
        ala ariz ark colo del ga ida ill ind ia kan kans ky la mass md me mich miss mo mont neb nev
        ont ore pa que tex va vt wash wyo
    """,
    Kind.NUMBER: """
        art arts c ca ch ext fig figs ksh no nos op p par para paras pp res rs sh tel tk vol vols
    """,
    Kind.MONTH: "jan feb febr mar apr jun jul aug sep sept oct nov dec",
    Kind.DAY: "mon tue tues wed weds thu thur thurs fri sat sun",
    Kind.CLOCK: "a.m p.m",
}

ABBREVIATIONS: Mapping[str, Kind] = {
    word: kind for kind, words in _WORDS.items() for word in words.split()
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


LOWER_CASE = _words("alt etc excl hrs ibid max min mins sic secs")
"""Short forms written small: a small letter after them goes on with the sentence."""

CAPITAL_NAMES = _words("adm ct est ft ms mt pt rt sec")
"""Abbreviations that in capitals are names or time zones, after which a sentence may end."""

BRANDS = _words("yahoo jeopardy joomla")
"""Names that carry an exclamation mark of their own."""

MONTHS = _words(
    """january february march april may june july august september october november december
    jan feb mar apr jun jul aug sep sept oct nov dec"""
)

CLOCK_FOLLOWERS = MONTHS | _words(
    """monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thurs fri sat
    sun gmt utc est edt et cst cdt ct mst mdt mt pst pdt pt cet cest bst ist jst eet msk eastern
    central mountain pacific greenwich local"""
)

STARTERS = _words(
    """the he she they it we but however meanwhile this these those there his her their its i you
    my our although though since while when where after before during if despite because also
    yesterday today earlier later asked speaking according what who why how then now not nobody
    nothing neither every each another many most some several few such both yet so no mr mrs ms
    still even once until unless instead nevertheless moreover furthermore thus hence all
    other perhaps here that one two three four five six seven eight nine ten"""
)
"""Capitalised after an abbreviation, these show that a sentence begins."""

WEAK_STARTERS = _words("a an and or in on at by for from with to as of")
"""As `STARTERS`, but not in a headline whose every word is capitalised."""

CASELESS_STARTERS = _words(
    "the he she they we but however meanwhile this these those there nobody mr mrs ms"
)
"""The starters that still mean something where capitals mean nothing."""

PLACES = _words(
    """afghanistan albania algeria angola ankara argentina armenia athens australia austria
    azerbaijan baghdad bahrain bangladesh beijing beirut belarus belgium berlin bolivia bosnia
    brazil britain brussels bulgaria burma cairo cambodia canada chad chile china colombia congo
    croatia cuba cyprus damascus denmark dublin ecuador egypt eritrea estonia ethiopia finland
    france georgia germany ghana greece guatemala haiti hanoi havana honduras hungary india
    indonesia iran iraq islamabad israel italy japan jerusalem jordan kabul kenya kiev kosovo
    kuwait kyiv laos latvia lebanon libya lithuania london madrid malaysia mali mexico moldova
    mongolia morocco moscow mozambique myanmar nepal nicaragua niger nigeria norway oman pakistan
    panama paraguay paris peru philippines poland portugal pretoria pyongyang qatar riyadh romania
    rome russia rwanda senegal seoul serbia singapore slovakia somalia spain sudan sweden
    switzerland syria taiwan tbilisi tehran thailand tokyo tripoli tunisia turkey uganda ukraine
    uruguay venezuela vietnam warsaw washington yemen yerevan zambia zimbabwe"""
)
"""Countries and capitals: before a verb, they begin a sentence after "U.S." and the like."""

LETTERED = _words(
    """annex appendix area article block building camp category chapter class company exhibit
    figure form gate grade group hepatitis level model option page part phase plan point pool
    proposition room schedule section sector stage table team terminal tier type unit vitamin war
    wing zone"""
)
"""Nouns that are told apart by a letter, which is then no initial ("Plan B.", "World War I.")."""
