"""Formula strings cannot run code, hang, or fail with anything but a FormulaError."""

from __future__ import annotations

import builtins
import contextlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lme4py import lmer, load_dataset  # imported whole here: an import of its own runs code
from lme4py.errors import FormulaError, Lme4Error
from lme4py.formula import parse_formula

HOSTILE = [
    "Reaction ~ Days.__class__ + (1|Subject)",
    "Reaction ~ __import__('os').system('true') + (1|Subject)",
    'Reaction ~ __import__("os") + (1|Subject)',
    "Reaction ~ eval('1') + (1|Subject)",
    "Reaction ~ exec('x=1') + (1|Subject)",
    "Reaction ~ open('/etc/passwd') + (1|Subject)",
    "Reaction ~ (lambda: Days)() + (1|Subject)",
    "Reaction ~ lambda x: x + (1|Subject)",
    "Reaction ~ [x for x in Days] + (1|Subject)",
    "Reaction ~ {x: 1 for x in Days} + (1|Subject)",
    "Reaction ~ (y := Days) + (1|Subject)",
    'Reaction ~ f"{Days}" + (1|Subject)',
    "Reaction ~ f'{__import__(\"os\")}' + (1|Subject)",
    'Reaction ~ "%s" % Days + (1|Subject)',
    "Reaction ~ '{0.__class__}'.format(Days) + (1|Subject)",
    "Reaction ~ Days.values + (1|Subject)",
    "Reaction ~ Days.sum() + (1|Subject)",
    "Reaction ~ np.log(Days) + (1|Subject)",
    "Reaction ~ numpy.log(Days) + (1|Subject)",
    "Reaction ~ os.system('ls') + (1|Subject)",
    "Reaction ~ getattr(Days, 'sum') + (1|Subject)",
    "Reaction ~ globals() + (1|Subject)",
    "Reaction ~ locals() + (1|Subject)",
    "Reaction ~ vars() + (1|Subject)",
    "Reaction ~ type(Days) + (1|Subject)",
    "Reaction ~ compile('1','','eval') + (1|Subject)",
    "Reaction ~ breakpoint() + (1|Subject)",
    "Reaction ~ input() + (1|Subject)",
    "Reaction ~ exit() + (1|Subject)",
    "Reaction ~ I(__import__('os')) + (1|Subject)",
    "Reaction ~ I(Days.__class__.__mro__) + (1|Subject)",
    "Reaction ~ I(().__class__.__bases__[0].__subclasses__()) + (1|Subject)",
    "Reaction ~ poly(Days, __import__('os').getpid()) + (1|Subject)",
    "Reaction ~ Days[0] + (1|Subject)",
    "Reaction ~ Days$x + (1|Subject)",
    "Reaction ~ Days@x + (1|Subject)",
    "Reaction ~ base::system('ls') + (1|Subject)",
    "Reaction ~ base:::system('ls') + (1|Subject)",
    "Reaction ~ system('ls') + (1|Subject)",
    "Reaction ~ source('x.R') + (1|Subject)",
    "Reaction ~ function(x) x + (1|Subject)",
    "Reaction ~ \\(x) x + (1|Subject)",
    "Reaction ~ Days; import os + (1|Subject)",
    "Reaction ~ Days if True else 1 + (1|Subject)",
    "Reaction ~ not Days + (1|Subject)",
    "Reaction ~ Days and 1 + (1|Subject)",
    "Reaction ~ await Days + (1|Subject)",
    "Reaction ~ yield Days + (1|Subject)",
    "Reaction ~ *Days + (1|Subject)",
    "Reaction ~ **Days + (1|Subject)",
    "Reaction ~ ...  + (1|Subject)",
    "Reaction ~ `__import__('os')` + (1|Subject)",
    "Reaction ~ Days + (1|__import__('os').system('ls'))",
    "Reaction ~ Days + (1|Subject.__class__)",
    "Reaction ~ Days + (exec('1')|Subject)",
    "__import__('os').system('ls') ~ Days + (1|Subject)",
    "Reaction.__class__ ~ Days + (1|Subject)",
    'eval("Reaction") ~ Days + (1|Subject)',
    "Reaction ~ offset(__import__('os').getpid()) + (1|Subject)",
    "Reaction ~ D\u0430ys + (1|Subject)",
    "Reaction ~ Days + (1|\u0405ubject)",
    "Reaction ~ \uff45val(Days) + (1|Subject)",
    "Reaction ~ \ufb01le(Days) + (1|Subject)",
    "Reaction ~ Day\u200bs + (1|Subject)",
    "Reaction ~ Days\u202e + (1|Subject)",
    "Reaction ~ Days <- 3 + (1|Subject)",
    "Reaction ~ Days = 3 + (1|Subject)",
    "Reaction ~ Days ->> x + (1|Subject)",
    "Reaction ~ Days %in% system('ls') + (1|Subject)",
    "Reaction ~ log(Days, base=__import__('os').getpid()) + (1|Subject)",
    "Reaction ~ pd.read_pickle('x') + (1|Subject)",
    "Reaction ~ pickle.loads(b'') + (1|Subject)",
    "Reaction ~ b'abc' + (1|Subject)",
    "Reaction ~ 0x41 + (1|Subject)",
    "Reaction ~ 1e999 + (1|Subject)",
    "Reaction ~ 9**9**9**9 + (1|Subject)",
    "Reaction ~ I(9^9^9^9) + (1|Subject)",
    "Reaction ~ I(Days^1e308) + (1|Subject)",
    "Reaction ~ 'a'*1000000000 + (1|Subject)",
    "Reaction ~ poly(Days, 1000000) + (1|Subject)",
    "Reaction ~ bs(Days, df=1000000) + (1|Subject)",
    "Reaction ~ rep(Days, 1e9) + (1|Subject)",
    "Reaction ~ Days\nimport os",
]

# Long or deep texts: the time must not grow faster than their length, so each is refused or read at once.
MONSTERS = {
    "a million characters": "Reaction ~ " + "+".join(["Days"] * 200_000),
    "deep parentheses": "Reaction ~ " + "(" * 40_000 + "Days" + ")" * 40_000,
    "deep bars": "Reaction ~ " + "(1|" * 20_000 + "Subject" + ")" * 20_000,
    "deep calls": "Reaction ~ " + "log(" * 20_000 + "Days" + ")" * 20_000,
    "many minus signs": "Reaction ~ " + "-" * 90_000 + "Days",
    "long name": "Reaction ~ " + "x" * 90_000,
    "long number": "Reaction ~ " + "9" * 90_000,
    "open quote": 'Reaction ~ "' + "a" * 90_000,
    "open backquote": "Reaction ~ `" + "a" * 90_000,
    "tildes": "~" * 90_000,
    "200 crossed variables": "Reaction ~ " + "*".join(f"v{i}" for i in range(200)),
}


@pytest.fixture(scope="module")
def sleep():
    return load_dataset("sleepstudy")


@pytest.fixture
def alarmed(monkeypatch):
    """Anything that would run, open or import on behalf of a formula fails the test at once."""

    def forbidden(*_args, **_kw):
        pytest.fail("a formula reached a function that runs code")

    for name in ("eval", "input", "breakpoint"):
        monkeypatch.setattr(builtins, name, forbidden)
    monkeypatch.setattr(os, "system", forbidden)


@pytest.mark.parametrize("formula", HOSTILE)
def test_hostile_formulas_are_refused(formula, sleep, alarmed):
    with pytest.raises(Lme4Error):
        lmer(formula, sleep)


def test_the_corpus_is_large():
    assert len(set(HOSTILE)) >= 60


@pytest.mark.parametrize("name", MONSTERS)
def test_monsters_are_refused(name, sleep):
    with pytest.raises(Lme4Error):
        lmer(MONSTERS[name], sleep)


ALPHABET = "yxgDays01.~+-*/^:|()[]{},=<>!&%$@#`'\"\\ \n\t_lambdaimport__class__é\u200b𝒙"


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.text(alphabet=ALPHABET, max_size=60))
def test_any_text_parses_or_is_a_formula_error(text):
    with contextlib.suppress(FormulaError):
        parse_formula(text)


WORDS = ["y", "x", "g", "1", "0", "2", '"s"', "`a b`", ".", "log(", "I(", "poly(", "offset("]
OPERATORS = ["~", "+", "-", "*", "/", "^", ":", "|", "||", "%in%", "(", ")", ","]
PIECES = st.sampled_from(WORDS + OPERATORS)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(PIECES, max_size=25))
def test_any_sequence_of_tokens_parses_or_is_a_formula_error(pieces):
    with contextlib.suppress(FormulaError):
        parse_formula(" ".join(pieces))
