"""Every regular expression of the package reads long texts of every kind in time that grows with their length."""

import ast
import gc
import importlib
import itertools
import re
import signal
from contextlib import contextmanager
from re import _constants as codes
from re import _parser

import pytest

from fedlas.predictions import normalize_answer, stated_confidence, stated_phrase
from sources import ROOT, nodes_of, text_of

METHODS = {"match", "fullmatch", "search", "sub", "split", "findall", "finditer"}
LENGTH = 20_000
PROCESSOR_SECONDS = 0.25
"""Of this process, for one text: linear patterns take at most .05, whatever else runs; quadratic ones at least .4."""
CLASSES = {
    codes.CATEGORY_DIGIT: "1",
    codes.CATEGORY_NOT_DIGIT: "a",
    codes.CATEGORY_SPACE: " \n",
    codes.CATEGORY_NOT_SPACE: "a",
    codes.CATEGORY_WORD: "a1_",
    codes.CATEGORY_NOT_WORD: " .",
}
"""Characters that stand for the classes of a pattern."""
SAMPLES = "a1_ .\n%([<>"
"""Characters that a set of excluded ones is tried with."""
ENDS = ("", "\n", "\N{SNOWMAN}", "z")
WINDOWS = {
    f"fedlas.predictions.language.stated.{name}": 120
    for name in (
        "_BEHIND_COLON", "_BEHIND_WORDS", "_BEHIND_LEVEL", "_BEHIND_TAG", "_NO_TIE", "_BOUND", "_PUT", "_SAY",
        "_AT_HALVES", "_BEHIND_ANSWER", "_NEGATED", "_is_bound", "_UNDONE", "_SCALE", "_IN_PERCENT", "_clause_before",
    )
}  # fmt: skip
"""Patterns that see a bounded number of characters about a number or word; many of them are tried as one text below."""
INDIRECT = {
    "fedlas.cli.init_table": "fullmatch",
    "fedlas.predictions.tables.formats.delimited": "fullmatch",
}
"""Method of patterns that a module hands to a function of its own; elsewhere they are searched for."""
LOCALS = {
    "fedlas.deploy.sql.ours": {"program": type("Program", (), {"prefix": "c"})},
    "fedlas.deploy.sql.stage": {"statement": "WITH fedlas_s1 AS (SELECT"},
    "fedlas.lab.recipes.yaml_text._add_core_schema": {"pattern": "|".join},
    "fedlas.predictions.language.lm_eval.whole": {"passed": "18"},
    "fedlas.predictions.language.stated.pattern": {"longest_first": ["almost certain", "certain"]},
    "fedlas.predictions.tables.formats.json_lines.key": {"plain": "p_"},
    "fedlas.predictions.two_arrays.accept_arrays": {"first": type("Parameter", (), {"name": "p"})},
}
"""What a pattern that is made while the program runs is made of."""


def find_expressions():
    """Return ``module.name`` -> module, node of the call, and methods of each regular expression in the sources."""
    found = {}
    for path in sorted((ROOT / "src" / "fedlas").rglob("*.py")):
        if not re.search(r"\bimport re\b", text_of(path)):
            continue
        module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        owner = {}
        for node in nodes_of(path):
            target = node.targets[0] if isinstance(node, ast.Assign) else node
            name = getattr(target, "name", getattr(target, "id", None))
            owner |= dict.fromkeys(ast.walk(node) if name else (), name)
        for node in nodes_of(path):
            function = getattr(node, "func", None)
            method = getattr(function, "attr", "")
            if getattr(getattr(function, "value", None), "id", "") != "re" or method == "escape":
                continue
            keys = (f"{module}.{owner[node]}{n or ''}" for n in itertools.count())
            used = re.findall(rf"\b{owner[node]}\.({'|'.join(METHODS)})\b", text_of(path))
            methods = (
                set(used or [INDIRECT.get(module, "search")]) if method == "compile" else {method}
            )
            found[next(key for key in keys if key not in found)] = (module, node, methods)
    return found


EXPRESSIONS = find_expressions()


def compile_expression(name):
    """Return the pattern of an expression, compiled with its flags."""
    module, call, _ = EXPRESSIONS[name]
    flags = [keyword for keyword in call.keywords if keyword.arg == "flags"]
    arguments = call.args if call.func.attr == "compile" else call.args[:1]
    made = ast.Call(ast.parse("re.compile", mode="eval").body, arguments, flags)
    code = compile(ast.fix_missing_locations(ast.Expression(made)), name, "eval")
    return eval(code, {**vars(importlib.import_module(module)), "re": re, **LOCALS.get(name, {})})


def characters(item):
    """Return the characters that an item of a parsed set, or a single character, stands for."""
    code, value = item
    if code is codes.LITERAL:
        return chr(value)
    if code is codes.RANGE:
        return chr(value[0])
    return CLASSES[value] if code is codes.CATEGORY else ""


def pieces(nodes):
    """Return short texts that a parsed pattern takes, each of another kind; of a sequence one a way to go on."""
    texts = [""]
    for code, value in nodes:
        texts = [f"{text}{more}" for text, more in itertools.product(texts, ways(code, value))][:16]
    return texts


def ways(code, value):
    """Return short texts that one node of a parsed pattern takes."""
    if code is codes.IN:
        taken = "".join(map(characters, value))
        others = "".join(each for each in SAMPLES if each not in taken)
        return list(others if value[0][0] is codes.NEGATE else taken)[:12]
    if code in (codes.LITERAL, codes.CATEGORY):
        return [characters((code, value))]
    if code in (codes.ANY, codes.NOT_LITERAL):
        return [each for each in SAMPLES if each not in ("\n", chr(value or 0))][:6]
    if code is codes.BRANCH:
        return [text for branch in value[1] for text in pieces(branch)][:16]
    if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
        return [text * max(value[0], 1) for text in pieces(value[2])] + [""] * (not value[0])
    if code is codes.SUBPATTERN:
        return pieces(value[3])
    return pieces(value) if code is codes.ATOMIC_GROUP else [""]


def repeats(nodes, before=""):
    """Yield a text in front of each repeat without an end, and short texts that it takes."""
    for code, value in nodes:
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            if value[1] >= 50:
                yield before, pieces(value[2])
            yield from repeats(value[2], before)
        elif code is codes.SUBPATTERN:
            yield from repeats(value[3], before)
        elif code is codes.BRANCH:
            for branch in value[1]:
                yield from repeats(branch, before)
        elif code in (codes.ASSERT, codes.ASSERT_NOT):
            yield from repeats(value[1], before)
        elif code is codes.ATOMIC_GROUP:
            yield from repeats(value, before)
        before += ways(code, value)[0]


def long_texts(pattern, length):
    """Return texts of a length: each kind that a pattern takes, alone and alternating, behind what goes before it."""
    source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode()
    parsed = _parser.parse(source, pattern.flags)
    bodies = {("", text, end) for text in pieces(parsed) if text for end in ENDS}
    for before, taken in repeats(parsed):
        kinds = [text for text in dict.fromkeys(taken) if text][:6]
        pairs = [f"{one}{two}" for one, two in itertools.pairwise([*kinds, *kinds[:1]])]
        for text in {*kinds, *pairs}:
            bodies |= {(before, text, end) for end in ENDS} | {("", text, ""), ("", text, ENDS[-1])}
            bodies.add(("", f"{before}{text}{text}", ENDS[-1]))
    return sorted(
        f"{before}{text * (length // len(text))}"[:length] + end for before, text, end in bodies
    )


@contextmanager
def bounded_processor_time(name, seconds=PROCESSOR_SECONDS):
    """Fail if the block takes more time of the processor; the engine of patterns looks for signals as it goes."""

    def fail(*_):
        raise AssertionError(f"{name} takes more than {seconds} s of the processor")

    before = signal.signal(signal.SIGPROF, fail)
    was_enabled = gc.isenabled()
    gc.disable()  # a collection takes as long as a slow pattern
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        if was_enabled:
            gc.enable()


def read_text(pattern, method, text):
    given = text if isinstance(pattern.pattern, str) else text.encode()
    if method == "sub":
        pattern.sub(given[:0], given)
    elif method == "finditer":
        for _ in pattern.finditer(given):
            pass
    else:
        getattr(pattern, method)(given)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expression_reads_long_texts_in_linear_time(name):
    """A new expression is tried by itself; one that is made while the program runs fails until LOCALS has it."""
    pattern = compile_expression(name)
    texts = long_texts(pattern, WINDOWS.get(name, LENGTH))
    assert len(texts) >= len(ENDS)
    for method, text in itertools.product(EXPRESSIONS[name][2], texts):
        with bounded_processor_time(f"{name} on {text[:24]!r} ... {text[-8:]!r}"):
            read_text(pattern, method, text)


def test_expressions_are_all_made_through_the_name_re():
    """The list above is read from calls of ``re.NAME``."""
    for path in (ROOT / "src" / "fedlas").rglob("*.py"):
        assert not re.search(
            r"from re import|import re as|import regex|from regex", text_of(path)
        ), path


KINDS = (*SAMPLES, *"-,:;/*=?!'\"$\\#{}|~", "\N{SNOWMAN}", "answer is ", "likely ", "not ", "I am 80% sure. ", "####",
         "\\boxed{", "one ", "Confidence: high (80%) ", "or ", "certain ", "don't ", "1 to ")  # fmt: skip


@pytest.mark.parametrize(
    "read", [lambda text: stated_confidence([text]), normalize_answer, stated_phrase]
)
@pytest.mark.parametrize("before", ["", "Confidence ", "The answer is "])
def test_answers_are_read_in_linear_time(read, before):
    """45 bytes, ``Confidence ......................... high (80%)``, took for ever: each dot doubled the time."""
    for kind in KINDS:
        text = f"{before}{kind * (LENGTH // len(kind))} high (80%)"
        with bounded_processor_time(f"{text[:24]!r} ... {text[-8:]!r}", seconds=1):
            read(text)


LOOPS = {
    "set_sibling": "a step per key of a path that the user names",
    "iter_row_blocks": "a block of the file",
    "_iter_limited_lines": "a line of the file",
    "content_digest": "a block of the file",
    "_decompressed_page_size": "a page of the file",
    "_read_struct": "a field, whose head is read",
    "_word_probability": "a label, each once",
}
"""What each step of a loop without a fixed number of steps consumes."""


def test_loops_over_a_strangers_text_are_listed_with_their_steps():
    found = set()
    for room in ("tables", "language"):
        for path in (ROOT / "src" / "fedlas" / "predictions" / room).rglob("*.py"):
            functions = [node for node in nodes_of(path) if isinstance(node, ast.FunctionDef)]
            found |= {
                function.name
                for function in functions
                if any(isinstance(node, ast.While) for node in ast.walk(function))
            }
    assert found == LOOPS.keys()
