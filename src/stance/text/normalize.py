"""Text as a classifier should see it: one spelling for what differs only in typography.

Models learn from sentences of many hands and eras; curly quotes, a dateline, a photographer's name
or a whole broadcast in capitals say nothing about a stance and cost accuracy where training had
none of them. `normalize` is for classifier input only: spans, offsets and whatever is shown to a
reader refer to the text as it was.
"""

import html
import re
import unicodedata

_SPELLINGS = {
    **dict.fromkeys("‘’‚‛′´`ʼ‹›", "'"),
    **dict.fromkeys("“”„‟″«»〝〞", '"'),
    **dict.fromkeys("‐‑‒–−", "-"),
    **dict.fromkeys("—―⸺", " - "),
    "…": "...",
    "⁄": "/",
    "ﬀ": "ff",
    "ﬁ": "fi",
    "ﬂ": "fl",
    "ﬃ": "ffi",
    "ﬄ": "ffl",
}
INVISIBLE = (
    r"\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff"
)
"""Characters without a shape of their own, as the inside of a regular expression's brackets."""

_UNUSUAL = re.compile(f"[{''.join(map(re.escape, _SPELLINGS))}]|[{INVISIBLE}]+")

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_NESTED_ENTITY = re.compile(r"&(?:amp;)+")
_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]{0,14}(?:\s[^<>]{0,400})?/?>|<!--[^<>]{0,400}-->")
_INLINE_TAG = re.compile(
    r"</?(?:a|abbr|acronym|b|big|cite|em|font|i|ins|mark|q|s|small|span|strong|sub|sup|tt|u)[\s/>]",
    re.IGNORECASE,
)
_MARKUP_PASSES = 4

_DASHES = re.compile(r"-{2,}")
_DOTS = re.compile(r"\.(?: ?\.){2,}")

_AGENCY = (
    r"(?:Reuters|Thomson Reuters Foundation|AP|Associated Press|AFP|UPI|CNN|BBC|dpa|EFE|ANSA"
    r"|Kyodo(?: News)?|Xinhua|Interfax|(?:ITAR-)?TASS|RIA(?: Novosti)?|IRNA|ISNA|MNA|SANA|KUNA|WAM"
    r"|SPA|MENA|Petra|NNA|Yonhap|KCNA|PTI|IANS|ANI|APP|Antara|Bernama|VNA|Anadolu|AA|Ukrinform|APA"
    r"|Lusa|IPS|IRIN|Bloomberg|AllAfrica|PANA|VOA|RFE/RL|CBS\.MW)"
)
_CAPITAL_PLACE = r"[A-ZÀ-ÖØ-Þ][A-ZÀ-ÖØ-Þ.'-]+(?:\s[A-ZÀ-ÖØ-Þ][A-ZÀ-ÖØ-Þ.'-]+){0,3}"
_COUNTRY = r"(?:,\s[A-ZÀ-ÖØ-Þ][\w.'-]{1,20}(?:\s(?:and\s)?[A-ZÀ-ÖØ-Þ][\w.'-]{1,20}){0,3})"
_MONTH = (
    r"(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DATE = (
    rf"(?:,?\s(?:{_MONTH}\s\d{{1,2}}|\d{{1,2}}\s{_MONTH}|(?i:(?:mon|tues|wednes|thurs|fri|satur|sun)"
    r"day))(?:,?\s\d{4})?\.?)"
)
_SOURCE = r"(?:,?\s?\([A-Z][\w./' -]{1,40}\)\.?)"
_DASH = r"\s?[-_]\s"
_SHORT_PLACES = (
    "ADEN|BAKU|BERN|BONN|CALI|DILI|DOHA|GAZA|JUBA|KANO|KIEV|KYIV|LIMA|LOME|MALE|NICE|OSLO|RIGA|ROME"
    "|SUVA"
)
_LEADING = re.compile(
    rf"""
      {_CAPITAL_PLACE} {_COUNTRY}{{0,2}} (?: {_DATE}{{1,2}} {_SOURCE}? | {_SOURCE} ) {_DASH}
    | [A-Z][\w.'-]{{1,20}}(?:\s[A-Z][\w.'-]{{1,20}}){{0,2}}
        {_COUNTRY}? {_DATE}? \s\({_AGENCY}\) {_DASH}
    | \(\s?{_AGENCY}\s?\) (?: {_DASH} | \s?(?=["'A-Z]) )
    | (?: {_CAPITAL_PLACE} {_COUNTRY}{{1,2}} | [A-Z][A-Z.'-]{{4,}}(?:\s[A-Z][A-Z.'-]+){{0,3}}
        | {_SHORT_PLACES} ) \s[-_]\s (?= ["']?[A-Z][a-z] | ["']?[AI]\s\w*[a-z] )
    | (?i: (?:file\s)?(?:photo|picture|image) | (?:image\s)?caption | video | watch | read\smore
        | see\salso ) \s?[:|]\s
    | FILE\s-\s
    | \((?i:files?|file\sphoto)\)\s?[:-]?\s?
    | \[\d{{1,2}}/\d{{1,2}}\]\s?
    """,
    re.VERBOSE,
)
_CREDIT_IN_BRACKETS = re.compile(
    r"""
    [(\[](?i:
        (?:additional\s)?(?:reporting|writing|editing|compiled|translated|graphics)
          (?:\sand\s(?:writing|editing))?\sby\s
      | (?:(?:ap|afp|epa|file|reuters|handout|getty)[\s/])?(?:photo|image|picture|photograph)s?
          (?:\s?[:/]|\s(?:by|credit|courtesy)\b)
      | (?:photo\s|image\s|picture\s)?(?:credit|courtesy|source)\s?(?::|\sof\b)
    )[^()\[\]]{0,300}[)\]]\.?\Z
    """,
    re.VERBOSE,
)
_END_INSIDE = re.compile(r"[.!?][\"')\]]{0,2}\s")
_CREDIT_AFTER_END = re.compile(
    rf"""
    (?: \(?(?:REUTERS|AFP|EPA|AP\sPhoto|AP|Xinhua|Getty\sImages|TASS|Anadolu)
        \s?/\s?[A-Z][\w.'-]{{1,20}}(?:[\s/][A-Z][\w.'-]{{1,20}}){{0,4}}\)?
      | (?:©|(?i:\(c\)|copyright))\s[^.]{{1,100}}\.?
      | (?i:photo|photograph|image|picture)(?:\sby|\s?:|\s?/)\s?[A-Z][^.]{{1,80}}
      | (?:-\s{_AGENCY}|\({_AGENCY}\))\.?
    )\Z
    """,
    re.VERBOSE,
)
_LONGEST_CREDIT = 320

_UPPER = re.compile(r"[A-Z]")
_MIN_LETTERS = 12
_MIN_WORDS = 3
_CAPITALS = 0.8


def normalize(text: str) -> str:
    """Return a text in the one plain spelling that classifiers are trained on.

    Typography becomes plain, HTML and invisible characters go, white space becomes single blanks,
    a dateline at the beginning and photo credits at either end go, and a text wholly in capitals
    becomes lower case. A text that is all margin keeps it. Normalising twice changes nothing more.
    """
    return _lower_capitals(_without_margins(_plain(text)))


def _plain(text: str) -> str:
    """Make typography plain, however deeply entities and tags are nested."""
    for _ in range(_MARKUP_PASSES):
        plain = _plain_once(text)
        if plain == text or ("&" not in plain and "<" not in plain):
            return plain
        text = plain
    return _plain_once(re.sub("[<>&]", " ", text))


def _plain_once(text: str) -> str:
    if "&" in text:
        text = _ENTITY.sub(_character, _NESTED_ENTITY.sub("&", text))
    if "<" in text:
        text = _TAG.sub(_blank_for_tag, text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", _UNUSUAL.sub(_spelling, text))
    if not text.isascii() or not text.isprintable() or "`" in text:
        text = _UNUSUAL.sub(_spelling, text)
    text = text.replace("''", '"')
    if "--" in text:
        text = _DASHES.sub(" - ", text)
    text = " ".join(text.split())
    return _DOTS.sub("...", text) if ".." in text or ". ." in text else text


def _character(entity: re.Match[str]) -> str:
    return html.unescape(entity.group())


def _blank_for_tag(tag: re.Match[str]) -> str:
    return "" if _INLINE_TAG.match(tag.group()) else " "


def _spelling(found: re.Match[str]) -> str:
    return _SPELLINGS.get(found.group(), "")


def _without_margins(text: str) -> str:
    """Cut datelines, captions and credits off, as long as something else is left."""
    start, end = 0, len(text)
    while (margin := _LEADING.match(text, start, end)) and margin.end() < end:
        start = margin.end()
    while (cut := _credit_start(text, start, end)) is not None:
        end = cut
    return text[start:end].strip()


def _credit_start(text: str, start: int, end: int) -> int | None:
    """Return where the text before a last credit ends, or None if there is no credit."""
    low = max(start, end - _LONGEST_CREDIT)
    if text.endswith((")", "]", ").", "]."), low, end):
        opened = max(text.rfind("(", low, end), text.rfind("[", low, end))
        if opened > start and _CREDIT_IN_BRACKETS.match(text, opened, end):
            return opened - (text[opened - 1] == " ")
    for inside in reversed(list(_END_INSIDE.finditer(text, low, end))):
        if _CREDIT_AFTER_END.match(text, inside.end(), end):
            return inside.end() - 1
    return None


def _lower_capitals(text: str) -> str:
    if text.isascii() and len(_UPPER.findall(text)) < _CAPITALS * _MIN_LETTERS:
        return text
    capitals = sum(map(str.isupper, text))
    letters = capitals + sum(map(str.islower, text))
    if letters < _MIN_LETTERS or capitals < _CAPITALS * letters:
        return text
    if sum(any(map(str.isalpha, word)) for word in text.split()) < _MIN_WORDS:
        return text
    return unicodedata.normalize("NFC", text.lower())
