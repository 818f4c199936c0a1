"""Two hundred phrases in which people and models grade a belief: each gives Kent's number, or nothing.

The phrases are those that surveys asked about, and the hedges that models write before a word of Kent's. The numbers
are Kent's alone: surveys find others for the words that he does not have, and between people spreads of .1 to .3.

Sources:
    S. Kent, "Words of Estimative Probability", Studies in Intelligence 8(4), 1964 (the numbers).
    H. Vogel et al., "The interpretation of verbal probabilities: a systematic literature review and meta-analysis",
    Studies in Health Technology and Informatics 296, 2022, doi:10.3233/SHTI220798 (expressions of 21 studies).
    B. Wintle et al., "Verbal probabilities: very likely to be somewhat more confusing than numbers", PLOS ONE 14(4),
    2019, doi:10.1371/journal.pone.0213522; M. Mastrandrea et al., guidance note of the IPCC, 2010 (scales in use).
    M. Xiong et al., "Can LLMs express their uncertainty?", ICLR 2024; K. Zhou et al., "Navigating the grey area",
    EMNLP 2023 (how models state confidence, and their hedges).
"""

import numpy as np
import pytest

from fedlas.predictions import stated_confidence

KENT = {
    "certain": 1.0, "I am certain.": 1.0, "I'm certain that it is Rome": 1.0, "It is certain": 1.0,
    "Rome, certain.": 1.0, "absolutely certain": 1.0, "I am completely certain.": 1.0, "totally certain": 1.0,
    "fully certain": 1.0, "entirely certain": 1.0, "almost certain": 0.93, "I am almost certain": 0.93,
    "It is almost certain that he came": 0.93, "almost certainly": 0.93, "It was almost certainly 1912": 0.93,
    "very likely": 0.93, "It is very likely": 0.93, "Very likely 1912": 0.93, "highly likely": 0.93,
    "It seems to me that this is highly likely": 0.93, "probable": 0.75, "That is probable.": 0.75, "probably": 0.75,
    "probably 1912": 0.75, "It is probably Rome": 0.75, "likely": 0.75, "This is likely.": 0.75, "likely Rome": 0.75,
    "Likely, it is Rome.": 0.75, "I think it is likely": 0.75, "I believe it is probably Rome": 0.75,
    "Honestly, it is likely": 0.75, "Fairly put, probably Rome": 0.75, "about even": 0.5, "It is about even": 0.5,
    "an even chance": 0.5, "even chance": 0.5, "roughly even chance": 0.5, "fifty-fifty": 0.5,
    "about fifty-fifty": 0.5, "roughly fifty-fifty": 0.5, "approximately fifty-fifty": 0.5, "probably not": 0.3,
    "Probably not Rome": 0.3, "unlikely": 0.3, "That is unlikely.": 0.3, "I think that is unlikely": 0.3,
    "almost certainly not": 0.07, "very unlikely": 0.07, "It is very unlikely": 0.07, "highly unlikely": 0.07,
    "impossible": 0.0, "That is impossible.": 0.0, "absolutely impossible": 0.0, "completely impossible": 0.0,
    "Confidence: likely": 0.75, "Confidence: very likely": 0.93, "Confidence: almost certain": 0.93,
}  # fmt: skip
HEDGED = [
    # before "certain"
    "I am fairly certain", "fairly certain", "somewhat certain", "reasonably certain", "moderately certain",
    "mostly certain", "nearly certain", "I'm pretty certain", "quite certain", "rather certain", "relatively certain",
    "very certain", "highly certain", "virtually certain", "practically certain", "near certain", "near-certain",
    "all but certain", "just about certain", "about certain", "largely certain", "partly certain", "partially certain",
    "generally certain", "sufficiently certain", "morally certain", "basically certain", "essentially certain",
    "kind of certain", "sort of certain", "kinda certain", "a bit certain", "a little certain", "slightly certain",
    "more or less certain", "more certain", "less certain", "most certain", "as certain", "so certain",
    "seems certain", "It seems certain", "appears certain", "It might be certain", "may be certain",
    "I would be certain", "should be certain", "could be certain", "looks certain", "increasingly certain",
    "I am reasonably but not fully certain", "I am *fairly* certain", "FAIRLY CERTAIN", "super certain",
    "certain enough", "almost-certain-ish", "certain-ish", "semi-certain",
    # before "likely" and "probable"
    "somewhat likely", "It is somewhat likely", "fairly likely", "quite likely", "pretty likely", "rather likely",
    "reasonably likely", "moderately likely", "relatively likely", "mostly likely", "most likely", "Most likely Rome",
    "extremely likely", "exceptionally likely", "overwhelmingly likely", "exceedingly likely", "really likely",
    "remarkably likely", "increasingly likely", "slightly likely", "only slightly likely", "marginally likely",
    "hardly likely", "barely likely", "more likely", "less likely", "more likely than not", "about as likely as not",
    "as likely as not", "equally likely", "seems likely", "It seems likely", "appears likely", "looks likely",
    "may be likely", "might be likely", "would be likely", "could be likely", "perhaps likely", "maybe likely",
    "possibly likely", "so likely", "too likely", "very very likely", "sort of likely", "kind of likely",
    "a bit likely", "not likely", "not very likely", "not too likely", "likely enough", "likely-ish",
    "fairly probable", "quite probable", "very probable", "highly probable", "most probable", "rather probable",
    "somewhat probable", "moderately probable", "reasonably probable", "more probable", "less probable",
    "very probably", "quite probably", "most probably", "fairly probably", "highly probably",
    # before "unlikely" and "impossible"
    "somewhat unlikely", "fairly unlikely", "quite unlikely", "rather unlikely", "pretty unlikely", "most unlikely",
    "moderately unlikely", "reasonably unlikely", "relatively unlikely", "extremely unlikely",
    "exceptionally unlikely", "slightly unlikely", "not unlikely", "seems unlikely", "a bit unlikely",
    "almost impossible", "nearly impossible", "virtually impossible", "practically impossible", "all but impossible",
    "seemingly impossible", "not impossible", "nearly even chance of Rome, quite likely",
    # words of surveys that Kent's table does not have
    "definite", "definitely", "possible", "possibly", "improbable", "doubtful", "uncertain", "perhaps", "maybe",
    "sure", "pretty sure", "I am quite sure", "expected", "always", "often", "never", "rarely", "toss-up",
    "good chance", "better than even", "little chance", "small chance", "high confidence", "moderate confidence",
    "confident",
    "fairly confident", "no doubt", "beyond doubt", "conceivable", "credible", "Confidence: fairly likely",
    "Confidence: somewhat certain", "Confidence: high", "Confidence: moderate to high",
]  # fmt: skip


@pytest.mark.parametrize("phrase", KENT)
def test_phrase_of_kents_gives_his_number(phrase):
    assert stated_confidence([phrase]).tolist() == [KENT[phrase]]


@pytest.mark.parametrize("phrase", HEDGED)
def test_phrase_with_unknown_hedge_states_nothing(phrase):
    """ "I am fairly certain" was read as 100 %."""
    assert np.isnan(stated_confidence([phrase])).all()


def test_hedge_that_the_table_has_counts():
    table = {"certain": 0.99, "fairly certain": 0.8}
    assert stated_confidence(["I am fairly certain.", "I am certain."], table).tolist() == [
        0.8,
        0.99,
    ]
