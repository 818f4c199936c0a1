"""The project's English: phrases that are hard to read, and British spelling, are refused where people read.

What is refused, and what to write instead, is listed here and nowhere else.
"""

import ast
import re
from pathlib import Path

import pytest

from sources import nodes_of, text_of

ROOT = Path(__file__).parents[2]

DOCUMENTS = (
    "*.md",
    "*.cff",
    "docs/**/*.md",
    "results/**/*.md",
    ".github/**/*.md",
    ".github/**/*.yml",
)
SOURCE = (
    "src/fedlas/**/*.py",
    "src/fedlas/**/*.j2",
    "docs/architecture.md",
    "docs/*.py",
    "docs/site/*.py",
    "examples/gallery/*.py",
)

PHRASES = [  # pattern, what to write instead, a sentence that is refused
    (r"\btold (from|apart)\b", "distinguishable from", "FedLAS is not told from its base."),
    (r"\btells? .{1,40} from\b", "distinguish ... from", "No test tells them from noise."),
    (r"\bat hand\b", "available", "No machine was at hand."),
    (r"\bwhoever\b", "anyone who", "Whoever asks gets it."),
    (
        r"\bgo(es)? on from\b|\bgoes on\b",
        "resumes, continues",
        "The same command goes on from the checkpoint.",
    ),
    (r"\band the like\b", "such as ...", "Alpha, beta and the like."),
    (r"\bagain: resumes\b", "rerun to resume", "Again: resumes."),
    (r"\bstopped\? (the same|run it again)", "rerun to resume", "Stopped? Run it again."),
    (r"\bit shows not\b", "it does not show", "On small sets it shows not."),
    (r"\banybody's\b", "anyone's", "It reads anybody's file."),
    (r"\bas it is\b", "unchanged, directly", "The log can be read as it is."),
    (r"\bwhat stands\b", "name the thing", "What stands below each is its output."),
    (r"\bthe house\b", "the package, the code", "The map of the house."),
    (r"\bin words\b", "described, as text", "It says in words what differs."),
    (r"\basked about beforehand\b", "pre-specified", "A difference asked about beforehand."),
    (r"\bwhat (\w+ )?\w+ says? of\b", "what ... says about", "What the test says of the model."),
    (
        r"(^|[.:] )of an? \w+ that\b",
        "if a ...",
        "Of a model that gives probabilities, pass their logarithm.",
    ),
    (
        r"(^|[.:] )beside (it|them|this|that|these) (stand|is|are)",
        "in addition, ...",
        "Beside it stand 26 losses.",
    ),
    (r"\bVERB\b|\b(every|each) verb\b", "subcommand", "Options of every verb."),
    (r"\brelabelled\b", "consistency resampling", "Bins of relabelled samples."),
]
_ISE = "general|initial|maxim|minim|normal|optim|organ|parametr|random|recogn|regular|standard|summar|synchron|visual"
SPELLING = [
    (rf"({_ISE})is(e[drs]?|es|ing|ations?|able|ers?)\b", "-ize", "Normalised features."),
    (r"(behavi|col|neighb|flav|fav)our", "-or", "The published behaviour."),
    (r"\bgr(e)ys?\b|\bcentre[sd]?\b|\bartefacts?\b|\bjudgement", "gray, center, artifact, judgment", "A grey bar."),
    (r"(label|model|travel|cancel|signal)l(ed|ing)\b", "one l", "Labelled images."),
    (r"\b(mis)?spelt\b|\blearnt\b", "spelled, learned", "A misspelt name."),
    (r"\b(toward|afterward|upward|downward)s\b", "without the s", "It moves towards zero."),
    (r"\banalys(e|ed|ing)\b|\bwhilst\b|\bamongst\b", "analyze, while, among", "We analyse it."),
]  # fmt: skip


CODE = re.compile(
    r"^ *(```|~~~).*?^ *\1$|^<!-- fedlas list .*?^<!-- end -->$", re.MULTILINE | re.DOTALL
)
"""What Markdown quotes from the code: fenced blocks and generated tables."""


def compiled(rules):
    for pattern, use, _ in rules:
        flags = re.MULTILINE | (0 if "VERB" in pattern else re.IGNORECASE)
        # a phrase may be broken over two lines
        yield re.compile(pattern.replace(" ", r"\s+"), flags), use


HARD, BRITISH = list(compiled(PHRASES)), list(compiled(SPELLING))


def findings(text, *, markdown=True):
    """Each refused phrase with its line, and what to write instead; spelling is not checked in what Markdown quotes."""
    prose = CODE.sub(lambda block: "\n" * block[0].count("\n"), text) if markdown else text
    # a spelling is that of one word, and a page repeats its words
    words = "\n".join(set(re.findall(r"\w+", prose)))
    british = [rule for rule in BRITISH if rule[0].search(words)]
    for place, rules in ((text, HARD), (prose, british)):
        for pattern, use in rules:
            for found in pattern.finditer(place):
                yield place.count("\n", 0, found.start()) + 1, " ".join(found[0].split()), use


def files(patterns):
    return sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()})


_NOUNS = "markdown|teardown"
IDENTIFIERS = {
    "a bare participle": rf"_*(?!{_NOUNS})[a-z]+(ed|en|wn|ught|ept|aid)(?<!feed|need|seed|open)",
    "a bare adverb": r"_*(together|apart|again|there|here)",
    "a preposition first": r"_*(of|in|by|at|for)(_[a-z0-9_]+)?",
    "a preposition last": r"_*[a-z0-9_]+_(of|in|at|for|by|on|up)",
    "a pronoun last": r"_*([a-z0-9_]+_)?(this|that|those|both|each|others?|it|what|which)",
    "a private word": r"_*(worth|plain|listed|numbered|judged|told|said|settled|misfits?)",
}
"""Names of functions that do not say what is done to what; properties are nouns and may be adjectives."""
MOST_UNCLEAR = 6
"""How many functions have such a name; lower it with each that goes."""


def function_names():
    """``(place, name)`` of every function and method that is not a property."""
    for path in files(("src/fedlas/**/*.py",)):
        for node in nodes_of(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not any(
                "property" in ast.unparse(decorator) or "setter" in ast.unparse(decorator)
                for decorator in node.decorator_list
            ):
                yield path.relative_to(ROOT / "src" / "fedlas").as_posix(), node.name


def test_names_of_functions_are_verb_and_object():
    unclear = [
        f"{place}: {name} ({why})"
        for place, name in function_names()
        for why, pattern in IDENTIFIERS.items()
        if re.fullmatch(pattern, name)
    ]
    assert len(unclear) <= MOST_UNCLEAR, "\n".join(["", *unclear])


@pytest.mark.parametrize(
    ("name", "is_unclear"),
    [
        ("_calibrated", True), ("drawn", True), ("together", True), ("of_samples", True), ("dates_in", True),
        ("measure_both", True), ("worth", True), ("feed", False), ("open", False), ("forward", False),
        ("format_value", False), ("from_dict", False), ("has_label", False), ("to_dict", False),
    ],
)  # fmt: skip
def test_unclear_names_are_recognized(name, is_unclear):
    matches = [pattern for pattern in IDENTIFIERS.values() if re.fullmatch(pattern, name)]
    assert bool(matches) == is_unclear


def test_people_read_plain_english():
    pages = {*files(SOURCE), *files(DOCUMENTS)}
    assert {ROOT / "README.md", ROOT / "docs/index.md", ROOT / "results/README.md"} <= pages
    found = [
        f"{page.relative_to(ROOT)}:{number}: '{words}'; write: {use}"
        for page in sorted(pages)
        for number, words, use in findings(text_of(page), markdown=page.suffix == ".md")
    ]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize(("pattern", "use", "sentence"), PHRASES + SPELLING)
def test_each_rule_refuses_its_example(pattern, use, sentence):
    assert use in [use for _, _, use in findings(sentence)]


def test_code_blocks_and_generated_tables_keep_their_spelling():
    assert not list(
        findings("```text\nnormalised\n```\n<!-- fedlas list losses -->\ngrey\n<!-- end -->")
    )
    assert [number for number, _, _ in findings("```text\nat hand\n```\ngrey")] == [2, 4]
    assert [number for number, _, _ in findings("one\nat\nhand")] == [2]
    assert not list(findings("An optimistic analysis of the four colors at the center."))
