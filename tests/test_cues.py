import random
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from stance.codebook import Codebook
from stance.cues import Cue, CueMatcher
from stance.errors import UserError


@pytest.fixture(scope="module")
def matcher(stance_codebook: Codebook) -> CueMatcher:
    return CueMatcher(stance_codebook)


def small(pattern: Any = "rain", patterns: Mapping[str, str] | None = None, **cue: Any) -> Codebook:
    return Codebook.from_mapping(
        {
            "name": "weather",
            "version": "1",
            "multi_label": True,
            "patterns": dict(patterns or {}),
            "labels": [
                {
                    "name": "forecast",
                    "definition": "It will rain.",
                    "cues": [{"name": "word", "rule": 1, "pattern": pattern, **cue}],
                }
            ],
        }
    )


def only(cues: list[Cue], label: str, name: str) -> Cue:
    (cue,) = [cue for cue in cues if (cue.label, cue.name) == (label, name)]
    return cue


# One sentence at least for every cue rule, with the words that must be found. The grammar varies:
# active, passive, nominal, infinitive, participle, quote, capitals.
FOUND = [
    ("condemnation", "condemn", "The raid was condemned by every neighbour.", "condemned"),
    ("condemnation", "condemn", "A strong condemnation came from Lagos.", "condemnation"),
    ("condemnation", "condemn", "PERU DENOUNCES THE BORDER FENCE", "DENOUNCES"),
    ("condemnation", "criticise", "Two mayors were critical of the toll.", "were critical of"),
    ("condemnation", "criticise", "She lashed out at the board on Monday.", "lashed out"),
    ("condemnation", "criticise", "The plan drew criticism from nurses.", "criticism"),
    ("condemnation", "accuse", "Quito accused its neighbour of hiding the gang.", "accused"),
    ("condemnation", "accuse", "Accusing the miners of arson, he left.", "Accusing"),
    ("condemnation", "accuse", "Norway rejected the accusations.", "accusations"),
    ("condemnation", "stand_accused", "The regime has long been accused of cruelty.", "accused"),
    (
        "threat",
        "vow",
        "The Tamale growers vowed to make the Workers' Party of Oran pay for the fire.",
        "vowed",
    ),
    (
        "threat",
        "threaten_with",
        "Canada threatened the metalworkers' union of the city of Turin with a boycott.",
        "threatened",
    ),
    (
        "mediation",
        "call_for_dialogue",
        "Rome called on the port authority of Beira and its rivals to settle their differences at "
        "the negotiating table.",
        "called",
    ),
    ("condemnation", "allege", "The party alleges that the count was rigged.", "alleges"),
    ("condemnation", "charge_with", "Lima charged Quito with arming the gang.", "charged"),
    ("condemnation", "blame", "Villagers blamed the dam company.", "blamed"),
    (
        "condemnation",
        "blame",
        "He held the generals responsible for the famine.",
        "held",
    ),
    ("condemnation", "protest", "Farmers took to the roads in protest.", "in protest"),
    ("condemnation", "protest", "A formal protest came from Chile.", "formal protest"),
    ("condemnation", "complain", "Cyprus complained that boats had entered.", "complained"),
    (
        "condemnation",
        "summon",
        "Oslo summoned the Chilean ambassador on Friday.",
        "summoned the Chilean ambassador",
    ),
    ("condemnation", "anger", "Crowds angry at the price of bread gathered.", "angry"),
    ("condemnation", "anger", "Kenya voiced its dismay at the verdict.", "voiced its dismay"),
    ("condemnation", "brand", "It was a cowardly deed, the bishop said.", "cowardly"),
    (
        "condemnation",
        "call_names",
        "The senator called the vote a fraud.",
        "called the vote a fraud",
    ),
    (
        "condemnation",
        "violation",
        "Such flights are a violation of our airspace.",
        "violation of our airspace",
    ),
    ("threat", "threaten_to", "Nauru threatened to close the port.", "threatened"),
    ("threat", "threaten_with", "He threatened the owners with jail.", "threatened"),
    ("threat", "threaten_that", "Rebels threatened that they would march.", "threatened"),
    ("threat", "threaten_harm", "The bloc threatened new sanctions.", "threatened"),
    ("threat", "threatening", "The judge received threatening letters.", "threatening letters"),
    ("threat", "threats_of", "There were threats of war from both.", "threats of war"),
    ("threat", "threat_kind", "Bus drivers renewed a strike threat.", "strike threat"),
    ("threat", "threat_made", "The militia repeated its threats.", "repeated its threats"),
    ("threat", "warn_self", "Gabon warned that it would expel the crews.", "warned"),
    ("threat", "warn_of", "The minister warned Fiji of serious consequences.", "warned"),
    ("threat", "warn_consequence", "He warned that looters would be shot.", "warned"),
    (
        "threat",
        "warn_if",
        "The guild warned that docks will close if pay is cut.",
        "warned",
    ),
    ("threat", "warning_act", "The ultimatum runs out at noon.", "ultimatum"),
    ("threat", "warning_act", "Jets flew low as a warning to the fort.", "as a warning to"),
    ("threat", "vow", "The colonel vowed to crush the mutiny.", "vowed"),
    ("threat", "vow", "They swore that the traitors would be punished.", "swore"),
    ("threat", "ready", "The navy is ready to use force.", "ready"),
    ("threat", "ready", "We will not hesitate to fire.", "will not hesitate to"),
    (
        "threat",
        "consequences",
        "They will pay a heavy price.",
        "will pay a heavy price",
    ),
    (
        "threat",
        "consequence_noun",
        "The note spoke of grave consequences.",
        "grave consequences",
    ),
    ("threat", "conditional", "Chad would cut off the oil if troops came.", "would cut"),
    ("threat", "conditional", "Unless he is freed, we will strike.", "will strike"),
    ("threat", "will_strike", "“We will crush them,” the marshal said.", "will crush"),
    ("threat", "not_until", "Nurses will not return until wages rise.", "will not"),
    ("threat", "or_else", "Leave the valley, the leaflet said, or else.", "or else"),
    (
        "threat",
        "or_else",
        "They gave the crew 48 hours to leave.",
        "gave the crew 48 hours to leave",
    ),
    ("threat", "no_choice", "We will be forced to strike, the union said.", "will be forced to"),
    ("threat", "weigh_cost", "Seoul is considering sanctions against the firm.", "considering"),
    ("threat", "plan_to_retaliate", "Ghana promised countermeasures.", "promised"),
    ("threat", "announce_cost", "Lima said it would expel two envoys.", "said"),
    ("mediation", "mediate", "Oman has mediated since June.", "mediated"),
    ("mediation", "mediate", "A Swiss-mediated truce held.", "Swiss-mediated"),
    ("mediation", "go_between", "Monaco offered its good offices.", "good offices"),
    (
        "mediation",
        "conciliate",
        "The conciliation commission sat again.",
        "conciliation commission",
    ),
    ("mediation", "broker", "Togo brokered a ceasefire on Sunday.", "brokered"),
    ("mediation", "broker", "The deal, brokered by Togo, failed.", "brokered by"),
    ("mediation", "facilitate", "Malta facilitated talks on Gozo.", "facilitated"),
    ("mediation", "host", "Finland hosted talks between the rivals.", "hosted"),
    ("mediation", "talks_under", "A UN-sponsored truce began.", "UN-sponsored"),
    (
        "mediation",
        "talks_under",
        "Rivals met for peace talks arranged by the bishops.",
        "talks arranged by",
    ),
    (
        "mediation",
        "peace_body",
        "The African Union peace talks resumed.",
        "African Union peace talks",
    ),
    (
        "mediation",
        "peace_efforts",
        "A neighbour is trying to end the conflict.",
        "trying to end",
    ),
    (
        "mediation",
        "envoy",
        "The envoy shuttled to the fort to arrange a truce.",
        "envoy",
    ),
    (
        "mediation",
        "third_envoy",
        "The special envoy flew in for talks with both camps.",
        "special envoy",
    ),
    (
        "mediation",
        "call_for_dialogue",
        "Palau urged both sides to resume negotiations.",
        "urged",
    ),
    (
        "mediation",
        "must_talk",
        "The row must be solved through dialogue between all parties.",
        "through dialogue",
    ),
    (
        "mediation",
        "bring_together",
        "The abbot tried to bring the two factions to the table.",
        "bring",
    ),
    ("mediation", "step_in", "The bishop stepped in to settle it.", "stepped in"),
    (
        "mediation",
        "between",
        "Nuns negotiated a truce between the gangs.",
        "negotiated a truce",
    ),
    (
        "mediation",
        "refer",
        "The dispute was submitted to the League.",
        "dispute was submitted to the League",
    ),
    (
        "mediation",
        "carry_messages",
        "A pilot carried messages between the camps.",
        "carried messages",
    ),
    (
        "mediation",
        "invite_both",
        "The king invited the two presidents to Fez for talks.",
        "invited",
    ),
    (
        "mediation",
        "propose_terms",
        "Bhutan proposed a settlement that both sides studied.",
        "proposed",
    ),
    ("retaliation", "in_retaliation", "It shelled the port in retaliation.", "in retaliation"),
    ("retaliation", "retaliate", "The clan avenged its chief.", "avenged"),
    ("retaliation", "retaliate", "A tit-for-tat ban followed.", "tit-for-tat"),
    ("retaliation", "counter", "The garrison counter-attacked at dawn.", "counter-attacked"),
    ("retaliation", "strike_back", "The patrol returned fire.", "returned fire"),
    (
        "retaliation",
        "in_response",
        "Mali closed the border in response to the raids.",
        "in response to",
    ),
    (
        "retaliation",
        "response_bare",
        "After the bombing the army shelled a camp in response.",
        "in response",
    ),
    ("retaliation", "respond_with", "Troops responded with artillery.", "responded"),
    (
        "retaliation",
        "punish",
        "Homes were razed as punishment for the ambush.",
        "as punishment for",
    ),
    (
        "retaliation",
        "deed_because",
        "Peru expelled two consuls over the shelling.",
        "expelled",
    ),
    (
        "retaliation",
        "deed_after",
        "Rome expelled two spies after Tirana expelled a consul.",
        "expelled",
    ),
    (
        "retaliation",
        "because_deed",
        "Because of this aggression we have closed the strait.",
        "Because of",
    ),
    ("retaliation", "same_treatment", "An eye for an eye, said the elder.", "eye for an eye"),
]

# Sentences whose cue must not count, and why.
BLOCKED = [
    ("condemnation", "condemn", "Fiji declined to condemn the coup.", "negated"),
    ("condemnation", "condemn", "He never condemned it.", "negated"),
    ("condemnation", "condemn", "Togo has yet to condemn the coup.", "negated"),
    ("condemnation", "criticise", "No government criticised the vote.", "negated"),
    ("condemnation", "criticise", "None of the neighbours criticised it.", "negated"),
    ("condemnation", "criticise", "There was little criticism abroad.", "negated"),
    ("condemnation", "criticise", "The hurricane slammed the coast.", "other sense"),
    ("condemnation", "brand", "He was fined for reckless driving.", "other sense"),
    ("condemnation", "blame", "Officials blamed the delay on a cable.", "other sense"),
    ("condemnation", "blame", "The frost was largely to blame.", "other sense"),
    ("condemnation", "condemn", "The envoy urged them to condemn the raid.", "negated"),
    ("condemnation", "condemn", "The thief was condemned to death.", "other sense"),
    ("condemnation", "condemn", "Condemned prisoners sang.", "other sense"),
    ("condemnation", "criticise", "To avoid criticism, she left.", "negated"),
    ("condemnation", "stand_accused", "A clerk accused of theft was jailed.", "other sense"),
    ("condemnation", "charge_with", "Two men were charged with theft.", "other sense"),
    ("condemnation", "blame", "Do not blame the teachers.", "negated"),
    ("condemnation", "blame", "Poor harvests were blamed on drought.", "other sense"),
    ("threat", "threaten_to", "He has not threatened to resign.", "negated"),
    ("threat", "threaten_to", "Rain threatened to stop play.", "other sense"),
    ("threat", "threat_kind", "Bus drivers withdrew a strike threat.", "negated"),
    ("threat", "conditional", "They will cancel it if the tests fail.", "other sense"),
    ("threat", "consequence_noun", "It met a strong response from readers.", "other sense"),
    ("mediation", "host", "Wembley will host the final between them.", "other sense"),
    ("retaliation", "strike_back", "Shares hit back in late trade.", "other sense"),
    ("retaliation", "in_response", "Ambulances came in response to an attack.", "other sense"),
    ("threat", "threaten_to", "The floods threaten to engulf the town.", "other sense"),
    ("threat", "threaten_to", "It may threaten to leave.", "speculative"),
    ("threat", "threaten_harm", "The pact is threatened by violence.", "other sense"),
    ("threat", "threats_of", "Ice posed threats of destruction.", "other sense"),
    (
        "threat",
        "warn_self",
        "The captain warned that they would arrive late.",
        "no harm by the warner",
    ),
    ("threat", "warn_of", "Analysts warned of tough action.", "other sense"),
    ("threat", "ready", "Cuba is not ready to attack.", "negated"),
    ("threat", "plan_to_retaliate", "Analysts say it will retaliate.", "other sense"),
    ("threat", "conditional", "The firm will open a shop in May.", "no condition"),
    ("mediation", "mediate", "Spain refused to mediate.", "negated"),
    ("mediation", "mediate", "The contract has a mediation clause.", "other sense"),
    ("mediation", "go_between", "Funds passed an intermediary bank.", "other sense"),
    ("mediation", "host", "Bonn hosted a meeting of bankers.", "no third party"),
    ("mediation", "call_for_dialogue", "Kiribati called for talks.", "no third party"),
    ("mediation", "third_envoy", "The special envoy opened a school.", "no third party"),
    ("mediation", "envoy", "The envoy opened a school.", "no third party"),
    ("retaliation", "retaliate", "Benin will not retaliate.", "negated"),
    ("retaliation", "retaliate", "Nepal may retaliate.", "speculative"),
    ("retaliation", "retaliate", "There were fears of reprisals.", "negated"),
    ("retaliation", "retaliate", "He will retaliate if the tax is passed.", "conditional"),
    ("retaliation", "retaliate", "The striker had revenge in the cup match.", "other sense"),
    ("retaliation", "in_retaliation", "If hit, it would fire in retaliation.", "conditional"),
    ("retaliation", "strike_back", "She hit back by saying he lied.", "other sense"),
    ("retaliation", "in_response", "The visit was in response to an invitation.", "no link"),
    ("retaliation", "punish", "The court punished him for theft.", "other sense"),
]


@pytest.mark.parametrize(("label", "name", "sentence", "words"), FOUND)
def test_a_cue_is_found_where_it_stands(matcher, label, name, sentence, words):
    cues = matcher.find(sentence)
    cue = next(
        cue for cue in cues if (cue.label, cue.name) == (label, name) and cue.blocked is None
    )
    assert cue.text == words
    assert sentence[cue.start : cue.end] == words
    assert label in matcher.labels(sentence)


@pytest.mark.parametrize(("label", "name", "sentence", "reason"), BLOCKED)
def test_a_cue_that_does_not_count_says_why(matcher, label, name, sentence, reason):
    cue = only(matcher.find(sentence), label, name)
    assert cue.blocked == reason
    assert label not in matcher.labels(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "The talks are slated for May.",
        "The tunnel will not close until June.",
        "The hearing would be next Tuesday.",
        "She uses a third-party application.",
    ],
)
def test_everyday_words_are_no_cues(matcher, sentence):
    assert not matcher.labels(sentence)


def test_every_cue_rule_of_the_shipped_codebook_has_a_sentence_here(stance_codebook):
    rules = {(label.name, cue.name) for label in stance_codebook.labels for cue in label.cues}
    assert rules == {(label, name) for label, name, _, _ in FOUND}


def test_labels_come_in_the_codebooks_order(matcher):
    sentence = "In revenge for the raid they threatened war and condemned the king."
    assert matcher.labels(sentence) == ("condemnation", "threat", "retaliation")


def test_a_vow_of_revenge_is_both_threat_and_retaliation(matcher):
    assert matcher.labels("The widow's brothers vowed revenge.") == ("threat", "retaliation")


def test_an_answer_to_an_act_that_has_not_happened_is_threat_alone(matcher):
    assert matcher.labels("Tonga will retaliate if the levy is passed.") == ("threat",)


def test_an_answer_to_an_act_that_goes_on_is_retaliation_too(matcher):
    sentence = "Tonga warned that it would retaliate if the shelling continued."
    assert matcher.labels(sentence) == ("threat", "retaliation")


def test_two_disputants_who_talk_are_no_mediation(matcher):
    assert matcher.labels("The two governments held talks and signed a ceasefire.") == ()


def test_a_rejected_offer_to_mediate_is_still_an_offer(matcher):
    assert matcher.labels("The rebels rejected an offer by Togo to mediate.") == ("mediation",)


@pytest.mark.parametrize(
    "sentence",
    [
        "THE TOWN CONDEMNED IT.",
        "the town condemned it.",
        "The\u00a0town  condemned\tit.",
        "The town “condemned” it.",
        "İstanbul’da: the town condemned it.",
        "The town, “ which ” slept, condemned it.",
    ],
)
def test_spans_refer_to_the_text_as_given(matcher, sentence):
    cue = only(matcher.find(sentence), "condemnation", "condemn")
    assert cue.text.lower() == "condemned"
    assert sentence[cue.start : cue.end] == cue.text


def test_invisible_characters_hide_no_cue(matcher):
    sentence = "Chad con\u00addemned the\u200b raid."
    cue = only(matcher.find(sentence), "condemnation", "condemn")
    assert sentence[cue.start : cue.end] == "con\u00addemned"


def test_a_span_across_quotes_covers_them(matcher):
    sentence = "It said it would not “tolerate” that."
    cue = only(matcher.find(sentence), "threat", "consequences")
    assert cue.text == "would not “tolerate"


def test_cues_come_in_the_order_of_the_text(matcher):
    starts = [cue.start for cue in matcher.find("They threatened to strike, blamed and condemned.")]
    assert starts == sorted(starts) and len(starts) >= 3


def test_features_say_per_rule_whether_it_fired_or_was_blocked(matcher):
    texts = ["Benin condemned it.", "Benin never condemned it.", "Benin slept."]
    features = matcher.features(texts)
    assert features.shape == (3, len(matcher.feature_names))
    assert len(set(matcher.feature_names)) == len(matcher.feature_names)
    fired = matcher.feature_names.index("condemnation/condemn/fired")
    blocked = matcher.feature_names.index("condemnation/condemn/blocked")
    assert features[:, fired].tolist() == [1, 0, 0]
    assert features[:, blocked].tolist() == [0, 1, 0]
    assert features[2].sum() == 0


def test_features_of_no_text_keep_their_columns(matcher):
    assert matcher.features([]).shape == (0, len(matcher.feature_names))


def test_a_codebook_without_cues_finds_nothing():
    codebook = Codebook.from_mapping(
        {
            "name": "moods",
            "version": "1",
            "multi_label": False,
            "labels": [{"name": "glad", "definition": "Glad."}],
        }
    )
    matcher = CueMatcher(codebook)
    assert matcher.find("They threatened war.") == []
    assert matcher.labels("They threatened war.") == ()
    assert matcher.feature_names == ()
    assert matcher.features(["a", "b"]).shape == (2, 0)


@pytest.mark.parametrize("text", ["", " ", "\n", "“”", "@", "…", "\ud800"])
def test_text_without_words_has_no_cues(matcher, text):
    assert matcher.find(text) == []


def test_patterns_may_refer_to_patterns_that_refer_to_others():
    codebook = small("{wet}", patterns={"wet": "{fine}|pour", "fine": "drizzle|mist"})
    assert CueMatcher(codebook).labels("Some mist at dawn") == ("forecast",)


def test_patterns_match_whole_words_in_any_case():
    matcher = CueMatcher(small("Rain"))
    assert matcher.labels("RAIN again") == ("forecast",)
    assert matcher.labels("the train") == matcher.labels("raining") == ()


@pytest.mark.parametrize(
    "pattern",
    [
        r"\w{1,3}-ab", r"[a-cx_]a", r"(?:ab)?ba", r"ab|ba|c", r"(?:ab){1,2}c", r"[^a-c ]b", r".ab",
        r"(?=a)[ab]{2}", r"a{0,2}b", r"(?:|c)ab", r",? b", r"\d{1,2}|x", r"a(?:b|c(?:a|b ?c))",
        r"\_a", r"(?:a{0,1}|bc)[b\d]", r"(?:(?:aa|b) ){0,2}c", r"[\w.]{2,4}-c", r"(?!ab)a\w",
        r"a\b.b",
    ],
)  # fmt: skip
def test_no_beginning_of_a_cue_is_passed_over(pattern):
    """Rules are looked up by their first letters; that finds what trying them everywhere finds."""
    matcher = CueMatcher(small(pattern))
    everywhere = re.compile(rf"\b(?:{pattern})(?!\w)")
    generator = random.Random(0)
    found = 0
    for _ in range(3000):
        text = "".join(generator.choices("aaabbbcc  x_1-.,", k=generator.randrange(1, 12)))
        starts = [cue.start for cue in matcher.find(text)]
        plain = re.sub("(?<= ) ", "", text)
        assert bool(starts) == bool(everywhere.search(plain)), text
        found += len(starts)
    assert found


def test_an_at_sign_in_the_text_is_not_taken_for_the_cue():
    matcher = CueMatcher(small(unless={"other sense": "me@"}))
    assert matcher.labels("me@home: rain") == ("forecast",)
    assert matcher.find("tell me rain")[0].blocked is None


def test_a_rule_may_opt_out_of_polarity_and_modality():
    patterns = {"negated": "no @", "speculative": "perhaps @"}
    strict = CueMatcher(small(patterns=patterns))
    assert [strict.find(f"{word} rain")[0].blocked for word in ("no", "perhaps", "more")] == [
        "negated",
        "speculative",
        None,
    ]
    lax = CueMatcher(small(patterns=patterns, negatable=False, speculative=False))
    assert lax.find("no rain")[0].blocked is lax.find("perhaps rain")[0].blocked is None


def test_a_condition_is_looked_for_only_near_the_cue():
    matcher = CueMatcher(small(requires={"no cloud": "cloud"}))
    assert matcher.find("cloud and rain")[0].blocked is None
    assert matcher.find("cloud " + "so " * 200 + "rain")[0].blocked == "no cloud"


@pytest.mark.parametrize(
    ("cue", "message"),
    [
        ({"pattern": "(rain"}, "cue forecast/word: pattern: no regular expression"),
        ({"pattern": "(rain)"}, "groups must be written"),
        ({"pattern": "rain.*"}, "repeats without bound at '(?:rain.*"),
        ({"pattern": "rain{2,}"}, "repeats without bound"),
        ({"pattern": "(?:rain)?"}, "it matches where no word is"),
        ({"pattern": "{wet}"}, "no pattern is named 'wet'"),
        ({"unless": {"dry": "[sun"}}, "cue forecast/word: unless 'dry': no regular expression"),
        ({"requires": {"dry": "sun+"}}, "cue forecast/word: requires 'dry': repeats without"),
        ({"pattern": "{a}", "patterns": {"a": "{b}", "b": "x|{a}"}}, "contains itself"),
        ({"patterns": {"negated": "no (@"}}, "cue forecast/word: negated: no regular expr"),
    ],
)
def test_a_bad_pattern_is_refused_with_the_name_of_its_cue(cue, message):
    with pytest.raises(UserError) as refusal:
        CueMatcher(small(**cue))
    assert message in str(refusal.value)
    assert "codebook weather 1" in str(refusal.value)


def test_signs_of_repetition_in_classes_and_escapes_are_no_repetition():
    assert CueMatcher(small(r"rain[*+{]\+")).labels("rain++ today") == ("forecast",)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 100_000,
        "not " * 20_000,
        "threat " * 5_000,
        "warned that they " * 3_000,
        "if " * 20_000 + "retaliate",
        "condemn, " * 5_000,
        "“ ” " * 20_000,
        "between the two " * 4_000,
    ],
    ids=lambda text: text[:12],
)
def test_hostile_text_is_read_to_its_end(matcher, text):
    features = matcher.features([text])
    assert np.isfinite(features).all()
