import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stance.text.normalize import normalize

MARGINS = (
    "HAVANA, Cuba (Reuters) -- |LONDON, March 3 - |LAGOS - |(AP) |FILE - |Photo: |(CNN)|[1/5] "
)
CREDITS = (
    " (Reporting by Lena Ford)| (AP Photo/J. Cole)| © 2003 Agency| AFP/Getty Images| - Reuters"
)
WORDS = 'Officials met.|Officials met. |THE COUNCIL OF MINISTERS |A |reporting by |met!" |LONDON '
MARKUP = "&amp;|&lt;b&gt;|&nbsp;|&|<|>|<b>|</p>|<p |amp;|lt;|#38;|<!--|-->"
MARKS = "“”‘’'`\"–—-…._ \u200b\u00ad\u2028\n\t\x00\x1fé\u0301\u0338İß()[]/:,!?7"

news_like = st.lists(
    st.sampled_from([*f"{MARGINS}|{CREDITS}|{WORDS}|{MARKUP}".split("|"), *MARKS])
).map("".join)

REPEATED = (
    "a|A |.|. |-|- |&|&amp;|&lt;|<|<a |<<b>b>|'|`|(| |LONDON, March 3 - |LONDON |(AP) |FILE - "
    "| (Reporting by X)|[1/2]|\u200b|\u0301|\x00|&am&#112;|. AFP/X|. (AP)|<!--|) "
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("“We’ll reply,” he said — twice…", '"We\'ll reply," he said - twice...'),
        ("``We will reply , '' he said", '"We will reply , " he said'),
        ("the 1998–2001 talks -- all of them", "the 1998-2001 talks - all of them"),
        ("bread . . . and shells.....", "bread ... and shells..."),
        ("The\u00a0envoy\u200b left\u2028 at\tnoon \n", "The envoy left at noon"),
        ("Cafe\u0301 bomb\u00ading\x07", "Café bombing"),
        ("The <b>U.S.</b>-led force<br/>fired<p class='x'>back", "The U.S.-led force fired back"),
        (
            "AT&amp;T &quot;regrets&quot; it &amp;amp; pays 5 &lt; 6",
            'AT&T "regrets" it & pays 5 < 6',
        ),
        ("losses of R&D; and 3 < 4 > 2", "losses of R&D; and 3 < 4 > 2"),
    ],
)
def test_typography_and_markup_become_plain(text: str, expected: str) -> None:
    assert normalize(text) == expected


@pytest.mark.parametrize(
    "dateline",
    [
        "HAVANA, Cuba (Reuters) -- ",
        "LONDON, March 3 - ",
        "NAIROBI, Sept. 14 (AP) – ",
        "WASHINGTON, D.C. (AP) — ",
        "U.N. HEADQUARTERS (AP) _ ",
        "PARIS, Aug. 4.—",
        "PORT-AU-PRINCE, Haiti, Feb. 2 (AFP) - ",
        "TEGUCIGALPA, Honduras, July 5, 2009 (EFE).- ",
        "SÃO PAULO, Brazil — ",
        "BEIRUT, Lebanon — ",
        "ST. LOUIS (UPI) -- ",
        "ROME - ",
        "Moscow (Interfax) – ",
        "GENEVA, Monday - ",
        "(CNN) -- ",
        "(CNN)",
    ],
)
def test_datelines_are_cut_off(dateline: str) -> None:
    assert normalize(dateline + "Officials condemned the raid.") == "Officials condemned the raid."


@pytest.mark.parametrize(
    "text",
    [
        "IMF - World Bank talks on the loan have failed.",
        "Paris, March 3 - a day to remember - passed quietly.",
        "The general (retired) - a critic of the war - was held.",
        "Iran (and Syria) - both under sanctions - protested.",
        "WAR CRIMES - the charge is denied.",
        "He spoke to Reuters (AP was not invited) and left.",
        "She was angered by a photo of the general.",
        "They discussed a report by the bank (see page 3)",
    ],
)
def test_what_only_resembles_a_margin_stays(text: str) -> None:
    assert normalize(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "FILE PHOTO: Troops fired back. REUTERS/Ali Khan",
        "FILE - Troops fired back. (AP Photo/Jane Cole, File)",
        "[1/5] Troops fired back. AFP/Getty Images",
        "Photo: Troops fired back. (Photo by Jane Cole)",
        "(FILES) Troops fired back. [Photo: Jane Cole/AFP]",
        "Troops fired back. (Reporting by Lena Ford; Editing by Omar Aziz)",
        "Troops fired back. (Additional reporting by Lena Ford)",
        "Troops fired back. - Reuters",
        "Troops fired back. © 2003 The Daily Agency",
        "ACCRA (Reuters) - Troops fired back. (Writing by Jo Bell) (Photo credit: J. Cole)",
    ],
)
def test_captions_and_credits_are_cut_off(text: str) -> None:
    assert normalize(text) == "Troops fired back."


@pytest.mark.parametrize(
    "text", ["(Reporting by Lena Ford)", "(CNN)", "LONDON, March 3 -", "FILE -"]
)
def test_a_text_that_is_nothing_but_a_margin_is_kept(text: str) -> None:
    assert normalize(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("THE U.N. ENVOY LEFT AT 5 P.M.", "the u.n. envoy left at 5 p.m."),
        ("GEN. McKAY SAID NATO FORCES WOULD ANSWER.", "gen. mckay said nato forces would answer."),
        ("BAGHDAD, 3 MAY -- THE COUNCIL DENOUNCED IT.", "the council denounced it."),
        ("ÉTAT D'URGENCE: L'ARMÉE RIPOSTERA", "état d'urgence: l'armée ripostera"),
        ("NATO AND EU", "NATO AND EU"),
        ("ANTIDISESTABLISHMENT CAMPAIGNERS", "ANTIDISESTABLISHMENT CAMPAIGNERS"),
        ("The UNHCR, the WFP and UNICEF appealed.", "The UNHCR, the WFP and UNICEF appealed."),
    ],
)
def test_only_texts_in_capitals_are_lowered(text: str, expected: str) -> None:
    assert normalize(text) == expected


@given(st.text() | news_like)
@example("&am&#112;lt;b&#62;")
@example("<<b>b>")
@example("&amp;" * 3 + "#38;lt;p&gt;")
@example("e\u200b\u0301")
@example("\u2002\u0338<\u0338")
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once


@given(st.text() | news_like)
def test_the_result_is_one_clean_line(text: str) -> None:
    result = normalize(text)
    assert result == " ".join(result.split())
    assert result == unicodedata.normalize("NFC", result)
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in result)
    assert not set(result) & set("“”‘’–—…\u200b\ufeff\u00ad")


@pytest.mark.parametrize("unit", REPEATED.split("|"))
def test_a_megabyte_of_anything_is_normalised(unit: str) -> None:
    assert len(normalize(unit * (1_000_000 // len(unit)))) <= 3_000_000
