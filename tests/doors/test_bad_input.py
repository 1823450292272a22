"""Bad input: every public function answers with one clear error before any fitting.

A row is: what is wrong, the call, the error, and the beginning of its message, which names the column or argument and
the numbers.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

import numpy as np
import pandas as pd
import pytest

import lme4py
from lme4py.errors import DataError, DesignError, FormulaError, OptionError

S = lme4py.load_dataset("sleepstudy")
C = lme4py.load_dataset("cbpp")
W = lme4py.load_dataset("wine")
F = "Reaction ~ Days + (Days | Subject)"
B = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
n = len(S)


def a(**columns):
    """sleepstudy with other columns."""
    return S.assign(**columns)


def bad(row, value):
    """sleepstudy with one odd response."""
    return S.assign(Reaction=S["Reaction"].where(np.arange(n) != row, value))


@cache
def sleep_fit():
    return lme4py.lmer(F, S)


@cache
def short_fit():
    return lme4py.lmer("Reaction ~ Days + (1|Subject)", S.iloc[:100])


@cache
def null_fit():
    return lme4py.lmer("Reaction ~ 1 + (1|Subject)", S)


@cache
def cbpp_fit():
    return lme4py.glmer(B, C)


@cache
def poisson_fit():
    return lme4py.glmer("incidence ~ period + (1|herd)", C, family="poisson")


CASES = [
    (
        "misspelt column",
        lambda: lme4py.lmer("Reaction ~ Dayz + (1|Subject)", S),
        DataError,
        "column 'Dayz' not found. Did you mean 'Days'? The data have 3",
    ),
    (
        "misspelt group",
        lambda: lme4py.lmer("Reaction ~ Days + (1|Subjct)", S),
        DataError,
        "column 'Subjct' not found. Did you mean 'Subject'? The data have 3",
    ),
    (
        "misspelt response",
        lambda: lme4py.lmer("Reactoin ~ Days + (1|Subject)", S),
        DataError,
        "column 'Reactoin' not found. Did you mean 'Reaction'? The data have 3",
    ),
    (
        "case",
        lambda: lme4py.lmer("Reaction ~ days + (1|Subject)", S),
        DataError,
        "column 'days' not found. Did you mean 'Days'? The data have 3",
    ),
    (
        "empty data",
        lambda: lme4py.lmer(F, S.iloc[:0]),
        DataError,
        "the data have no rows; give at least one row per parameter",
    ),
    (
        "one row",
        lambda: lme4py.lmer(F, S.iloc[:1]),
        DesignError,
        "the grouping factor 'Subject' of (Days | Subject) has only one level",
    ),
    (
        "no columns",
        lambda: lme4py.lmer(F, pd.DataFrame()),
        DataError,
        "the data have no rows; give at least one row per parameter",
    ),
    (
        "all NA column",
        lambda: lme4py.lmer(F, a(Days=np.nan)),
        DataError,
        "180 of 180 rows have missing values (Days: 180); no row is left;",
    ),
    (
        "all NA response",
        lambda: lme4py.lmer(F, a(Reaction=np.nan)),
        DataError,
        "180 of 180 rows have missing values (Reaction: 180); no row is left;",
    ),
    (
        "all NA group",
        lambda: lme4py.lmer(F, a(Subject=None)),
        DataError,
        "180 of 180 rows have missing values (Subject: 180); no row is left;",
    ),
    (
        "inf in x",
        lambda: lme4py.lmer(F, a(Days=np.where(np.arange(n) == 3, np.inf, S["Days"]))),
        DataError,
        "column 'Days' of the fixed effects has 1 infinite value(s); correct",
    ),
    (
        "inf in y",
        lambda: lme4py.lmer(F, bad(3, np.inf)),
        DataError,
        "the response 'Reaction' has 1 infinite value(s); correct the data, or",
    ),
    (
        "-inf in y",
        lambda: lme4py.lmer(F, bad(3, -np.inf)),
        DataError,
        "the response 'Reaction' has 1 infinite value(s); correct the data, or",
    ),
    (
        "constant response",
        lambda: lme4py.lmer(F, a(Reaction=1.0)),
        DataError,
        "the fixed effects fit the response exactly (all residuals are zero),",
    ),
    (
        "one level",
        lambda: lme4py.lmer(F, a(Subject="a")),
        DesignError,
        "the grouping factor 'Subject' of (Days | Subject) has only one level",
    ),
    (
        "re per row",
        lambda: lme4py.lmer("Reaction ~ Days + (1|obs)", a(obs=np.arange(n))),
        DesignError,
        "the grouping factor 'obs' of (1 | obs) has 180 levels for 180",
    ),
    (
        "text y",
        lambda: lme4py.lmer(F, a(Reaction="a")),
        DataError,
        "the response 'Reaction' is not numeric: it is text or a factor with 1",
    ),
    (
        "text numbers y",
        lambda: lme4py.lmer(F, a(Reaction=S["Reaction"].astype(str))),
        DataError,
        "the response 'Reaction' is not numeric: it is text or a factor with",
    ),
    (
        "categorical y",
        lambda: lme4py.lmer("Subject ~ Days + (1|Subject)", S),
        FormulaError,
        "the response `Subject` cannot be the grouping factor; name another",
    ),
    (
        "datetime y",
        lambda: lme4py.lmer(F, a(Reaction=pd.Timestamp("2020-01-01"))),
        DataError,
        "column 'Reaction' holds dates or times of type datetime64[",
    ),
    (
        "datetime x",
        lambda: lme4py.lmer(F, a(Days=pd.date_range("2020", periods=n))),
        DataError,
        "column 'Days' holds dates or times of type datetime64[",
    ),
    (
        "complex y",
        lambda: lme4py.lmer(F, a(Reaction=1j)),
        DataError,
        "column 'Reaction' holds complex numbers of type complex128; use the",
    ),
    (
        "object list y",
        lambda: lme4py.lmer(F, a(Reaction=[[1]] * n)),
        DataError,
        "column 'Reaction' holds [1] of type list in row 0; turn it into",
    ),
    (
        "unhashable group",
        lambda: lme4py.lmer(F, a(Subject=[[1]] * n)),
        DataError,
        "column 'Subject' holds [1] of type list in row 0; turn it into",
    ),
    (
        "dict group",
        lambda: lme4py.lmer(F, a(Subject=[{1: 2}] * n)),
        DataError,
        "column 'Subject' holds {1: 2} of type dict in row 0; turn it into",
    ),
    (
        "duplicate columns",
        lambda: lme4py.lmer(F, pd.concat([S, S[["Days"]]], axis=1)),
        DataError,
        "2 columns are named 'Days'; rename all but one of them.",
    ),
    (
        "data is list",
        lambda: lme4py.lmer(F, [1, 2, 3]),
        DataError,
        "`data` is of type list; give a pandas or polars DataFrame (or",
    ),
    (
        "data is array",
        lambda: lme4py.lmer(F, np.zeros((3, 3))),
        DataError,
        "`data` is of type ndarray; name its columns with",
    ),
    (
        "data is None",
        lambda: lme4py.lmer(F, None),
        DataError,
        "`data` is of type NoneType; give a pandas or polars DataFrame (or",
    ),
    (
        "data is path",
        lambda: lme4py.lmer(F, "sleep.csv"),
        DataError,
        "there is no file 'sleep.csv'; check the path.",
    ),
    (
        "ragged dict",
        lambda: lme4py.lmer(F, {"Reaction": [1, 2], "Days": [1], "Subject": [1, 2]}),
        DataError,
        "the columns of `data` differ in length: 'Reaction' has 2 rows and",
    ),
    (
        "formula not str",
        lambda: lme4py.lmer(3, S),
        OptionError,
        '`formula` is of type int; give text such as "y ~ x + (x | g)".',
    ),
    (
        "formula None",
        lambda: lme4py.lmer(None, S),
        OptionError,
        '`formula` is of type NoneType; give text such as "y ~ x + (x | g)".',
    ),
    (
        "formula bytes",
        lambda: lme4py.lmer(b"y~x", S),
        OptionError,
        '`formula` is of type bytes; give text such as "y ~ x + (x | g)".',
    ),
    (
        "swapped",
        lambda: lme4py.lmer(S, F),
        OptionError,
        '`formula` is of type DataFrame; give text such as "y ~ x + (x | g)".',
    ),
    ("formula: empty", lambda: lme4py.lmer("", S), FormulaError, "the formula is empty; write `response ~ terms`"),
    ("formula: blank", lambda: lme4py.lmer("   ", S), FormulaError, "the formula is empty; write `response ~ terms`"),
    (
        "formula: no tilde",
        lambda: lme4py.lmer("Reaction + Days", S),
        FormulaError,
        "the formula has no `~`; write `response ~ terms + (1 | group)`",
    ),
    (
        "formula: no lhs",
        lambda: lme4py.lmer("~ Days + (1|Subject)", S),
        FormulaError,
        "the formula has no response on the left of `~`; write `response ~",
    ),
    (
        "formula: no rhs",
        lambda: lme4py.lmer("Reaction ~", S),
        FormulaError,
        "the formula ends too early: something is missing after `~`; add a term",
    ),
    (
        "formula: two tildes",
        lambda: lme4py.lmer("Reaction ~ Days ~ (1|Subject)", S),
        FormulaError,
        "a formula has only one `~`; join the terms with `+`",
    ),
    (
        "formula: no random",
        lambda: lme4py.lmer("Reaction ~ Days", S),
        FormulaError,
        "the formula 'Reaction ~ Days' has no random-effects term; add one in",
    ),
    (
        "formula: open paren",
        lambda: lme4py.lmer("Reaction ~ Days + (1|Subject", S),
        FormulaError,
        "this parenthesis is not closed; add `)`",
    ),
    (
        "formula: close paren",
        lambda: lme4py.lmer("Reaction ~ Days + 1|Subject)", S),
        FormulaError,
        "this parenthesis has no opening one; remove it",
    ),
    (
        "formula: empty bar left",
        lambda: lme4py.lmer("Reaction ~ (|Subject)", S),
        FormulaError,
        "nothing stands on the left of the bar; write `(1 | group)`",
    ),
    (
        "formula: empty bar right",
        lambda: lme4py.lmer("Reaction ~ (1|)", S),
        FormulaError,
        "no grouping factor stands on the right of the bar; write `(1 | group)`",
    ),
    (
        "formula: triple bar",
        lambda: lme4py.lmer("Reaction ~ (1|||Subject)", S),
        FormulaError,
        "nothing stands on the left of the bar; write `(1 | group)`",
    ),
    (
        "formula: nested bar",
        lambda: lme4py.lmer("Reaction ~ (1|(1|Subject))", S),
        FormulaError,
        "a random-effects term has one bar; put each term in parentheses,",
    ),
    (
        "formula: double plus end",
        lambda: lme4py.lmer("Reaction ~ Days +", S),
        FormulaError,
        "the formula ends too early: something is missing after `+`; add a term",
    ),
    (
        "formula: star end",
        lambda: lme4py.lmer("Reaction ~ Days *", S),
        FormulaError,
        "the formula ends too early: something is missing after `*`; add a term",
    ),
    (
        "formula: star star",
        lambda: lme4py.lmer("Reaction ~ Days ** ", S),
        FormulaError,
        "the formula ends too early: something is missing after `**`; add a",
    ),
    (
        "formula: colon",
        lambda: lme4py.lmer("Reaction ~ Days: + (1|Subject)", S),
        FormulaError,
        "the random-effects term `(1 | Subject)` has no interactions; add it",
    ),
    (
        "formula: caret neg",
        lambda: lme4py.lmer("Reaction ~ Days^-1 + (1|Subject)", S),
        FormulaError,
        "the power of terms must be a whole number such as `(a + b)^2`; for",
    ),
    (
        "formula: caret frac",
        lambda: lme4py.lmer("Reaction ~ (Days)^1.5 + (1|Subject)", S),
        FormulaError,
        "the power of terms must be a whole number such as `(a + b)^2`; for",
    ),
    (
        "formula: unknown function",
        lambda: lme4py.lmer("Reaction ~ lgo(Days) + (1|Subject)", S),
        FormulaError,
        "function 'lgo' is not known in a formula. Did you mean 'log'? Make",
    ),
    (
        "formula: log args",
        lambda: lme4py.lmer("Reaction ~ log() + (1|Subject)", S),
        FormulaError,
        "log(): argument 'x' is missing; write log(x, base)",
    ),
    (
        "formula: too many args",
        lambda: lme4py.lmer("Reaction ~ sqrt(Days, 2) + (1|Subject)", S),
        FormulaError,
        "sqrt() takes at most 1 arguments: sqrt(x)",
    ),
    (
        "formula: poly 0",
        lambda: lme4py.lmer("Reaction ~ poly(Days, 0) + (1|Subject)", S),
        FormulaError,
        "poly(): argument 'degree' must be a whole number >= 1, not 0",
    ),
    (
        "formula: poly 20",
        lambda: lme4py.lmer("Reaction ~ poly(Days, 20) + (1|Subject)", S),
        FormulaError,
        "poly(): degree 20 needs at least 21 distinct values, but column",
    ),
    (
        "formula: log negative",
        lambda: lme4py.lmer("Reaction ~ log(Days - 5) + (1|Subject)", S),
        FormulaError,
        "`log(Days - 5)` is not finite in 108 of 180 rows, first NaN where",
    ),
    (
        "formula: log zero",
        lambda: lme4py.lmer("Reaction ~ log(Days) + (1|Subject)", S),
        FormulaError,
        "`log(Days)` is not finite in 18 of 180 rows, first -Inf where Days =",
    ),
    (
        "formula: number response",
        lambda: lme4py.lmer("3 ~ Days + (1|Subject)", S),
        FormulaError,
        "the response uses no column of the data; name one",
    ),
    (
        "formula: string",
        lambda: lme4py.lmer("Reaction ~ 'Days' + (1|Subject)", S),
        FormulaError,
        "a text is not a term; write a column's name without quotes or in",
    ),
    (
        "formula: assign",
        lambda: lme4py.lmer("Reaction ~ x = Days + (1|Subject)", S),
        FormulaError,
        "`=` only names an argument of a function; to compare write `==`",
    ),
    (
        "formula: comma",
        lambda: lme4py.lmer("Reaction ~ Days, (1|Subject)", S),
        FormulaError,
        "a comma stands only between the arguments of a function; join terms",
    ),
    (
        "formula: dup bar",
        lambda: lme4py.lmer("Reaction ~ (1|Subject) + (1|Subject)", S),
        FormulaError,
        "the random-effects term `(1 | Subject)` occurs twice; remove one of",
    ),
    (
        "formula: semicolon",
        lambda: lme4py.lmer("Reaction ~ Days; (1|Subject)", S),
        FormulaError,
        "`;` is not part of a formula: a formula holds one expression; compute",
    ),
    (
        "formula: 0|g",
        lambda: lme4py.lmer("Reaction ~ Days + (0|Subject)", S),
        FormulaError,
        "the random-effects term has no columns; write `(1 | group)` for an",
    ),
    (
        "formula: fraction of text",
        lambda: lme4py.lmer("Reaction ~ I(Subject/2) + (1|Subject)", S),
        FormulaError,
        "column 'Subject' is a factor with levels '308', '309', '310', '330',",
    ),
    (
        "formula: log of text",
        lambda: lme4py.lmer("Reaction ~ log(Subject) + (1|Days)", S),
        FormulaError,
        "log(): column 'Subject' is a factor with levels '308', '309', '310',",
    ),
    (
        "formula: poly of text",
        lambda: lme4py.lmer("Reaction ~ poly(Subject, 2) + (1|Days)", S),
        FormulaError,
        "poly(): column 'Subject' is a factor with levels '308', '309', '310',",
    ),
    (
        "formula: offset text",
        lambda: lme4py.lmer("Reaction ~ offset(Subject) + (1|Days)", S),
        DataError,
        "the offset 'Subject' is not numeric; use one numeric column or",
    ),
    (
        "formula: offset alone bad",
        lambda: lme4py.lmer("Reaction ~ offset() + (1|Subject)", S),
        FormulaError,
        "`offset()` takes one expression; write `offset(log(time))`",
    ),
    (
        "formula: minus bar",
        lambda: lme4py.lmer("Reaction ~ Days - (1|Subject)", S),
        FormulaError,
        "the random-effects term `(1 | Subject)` cannot be subtracted; leave",
    ),
    (
        "formula: bar in function",
        lambda: lme4py.lmer("Reaction ~ log(Days|Subject)", S),
        FormulaError,
        "the formula 'Reaction ~ log(Days|Subject)' has no random-effects",
    ),
    (
        "formula: curly",
        lambda: lme4py.lmer("Reaction ~ {Days} + (1|Subject)", S),
        FormulaError,
        "`{` is not part of a formula: a formula holds one expression; compute",
    ),
    (
        "formula: brackets",
        lambda: lme4py.lmer("Reaction ~ Days[1] + (1|Subject)", S),
        FormulaError,
        "`[` is not part of a formula: indexing is not possible in a formula;",
    ),
    (
        "formula: lone backquote",
        lambda: lme4py.lmer("Reaction ~ `Days + (1|Subject)", S),
        FormulaError,
        "``` is not part of a formula: the name is not closed; add the second",
    ),
    (
        "formula: unclosed quote",
        lambda: lme4py.lmer("Reaction ~ 'Days + (1|Subject)", S),
        FormulaError,
        "`'` is not part of a formula: the text is not closed; add the second",
    ),
    (
        "formula: dot no",
        lambda: lme4py.lmer("Reaction ~ Days.x + (1|Subject)", S),
        DataError,
        "column 'Days.x' not found. Did you mean 'Days'? The data have 3",
    ),
    (
        "formula: unicode",
        lambda: lme4py.lmer("Reaction ~ D\u0430ys + (1|Subject)", S),
        DataError,
        "column 'D\u0430ys' not found. Did you mean 'Days'? The data have 3",
    ),
    (
        "weights neg",
        lambda: lme4py.lmer(F, S, weights=-np.ones(n)),
        DataError,
        "the weights hold 180 negative value(s) but must be positive and",
    ),
    (
        "weights zero all",
        lambda: lme4py.lmer(F, S, weights=np.zeros(n)),
        DataError,
        "the weights hold 180 zero value(s) but must be positive and finite;",
    ),
    (
        "weights nan",
        lambda: lme4py.lmer(F, S, weights=np.full(n, np.nan)),
        DataError,
        "180 of 180 rows have missing values (weights: 180); no row is left;",
    ),
    (
        "weights inf",
        lambda: lme4py.lmer(F, S, weights=np.full(n, np.inf)),
        DataError,
        "the weights hold 180 infinite value(s) but must be positive and",
    ),
    (
        "weights short",
        lambda: lme4py.lmer(F, S, weights=np.ones(3)),
        DataError,
        "`weights` has 3 values but the data have 180 rows; give one number",
    ),
    (
        "weights scalar",
        lambda: lme4py.lmer(F, S, weights=2.0),
        DataError,
        "`weights` is of type float; give a column name, or one value for",
    ),
    (
        "weights 2d",
        lambda: lme4py.lmer(F, S, weights=np.ones((n, 2))),
        DataError,
        "`weights` has shape (180, 2); a column needs one value per row, that",
    ),
    (
        "weights text col",
        lambda: lme4py.lmer(F, S, weights="Subject"),
        DataError,
        "the weights 'Subject' are not numeric; give a numeric column, an expression of",
    ),
    (
        "weights missing col",
        lambda: lme4py.lmer(F, S, weights="w"),
        DataError,
        "column 'w' not found. The data have 3 columns: Reaction, Days,",
    ),
    (
        "weights list of str",
        lambda: lme4py.lmer(F, S, weights=["a"] * n),
        DataError,
        "`weights` holds text values, not numbers; give one number per row.",
    ),
    (
        "offset nan",
        lambda: lme4py.lmer(F, S, offset=np.full(n, np.nan)),
        DataError,
        "180 of 180 rows have missing values (offset: 180); no row is left;",
    ),
    (
        "offset inf",
        lambda: lme4py.lmer(F, S, offset=np.full(n, np.inf)),
        DataError,
        "the offset has 180 infinite value(s); correct them, or remove these rows",
    ),
    (
        "offset short",
        lambda: lme4py.lmer(F, S, offset=np.ones(2)),
        DataError,
        "`offset` has 2 values but the data have 180 rows; give one number per",
    ),
    (
        "offset col missing",
        lambda: lme4py.lmer(F, S, offset="offs"),
        DataError,
        "column 'offs' not found. The data have 3 columns: Reaction, Days,",
    ),
    ("reml str", lambda: lme4py.lmer(F, S, reml="yes"), OptionError, "`reml` is 'yes'; give True or False."),
    ("reml 2", lambda: lme4py.lmer(F, S, reml=2), OptionError, "`reml` is 2; give True or False."),
    (
        "start short",
        lambda: lme4py.lmer(F, S, start=[1.0]),
        OptionError,
        "theta must hold 3 finite numbers (one per relative covariance",
    ),
    (
        "start nan",
        lambda: lme4py.lmer(F, S, start=[1.0, np.nan, 1.0]),
        OptionError,
        "theta must hold 3 finite numbers (one per relative covariance",
    ),
    (
        "start text",
        lambda: lme4py.lmer(F, S, start="a"),
        OptionError,
        "theta is 'a'; give 3 numbers, the start of the search.",
    ),
    (
        "control list",
        lambda: lme4py.lmer(F, S, control=[1]),
        OptionError,
        "control must be a dict such as {'max_evaluations': 500}, got list.",
    ),
    (
        "control unknown",
        lambda: lme4py.lmer(F, S, control={"optimiser": "bobyqa"}),
        OptionError,
        "control has no setting 'optimiser'; there are max_evaluations,",
    ),
    (
        "control neg",
        lambda: lme4py.lmer(F, S, control={"max_evaluations": -1}),
        OptionError,
        "control['max_evaluations'] must be a positive number, got -1.",
    ),
    (
        "control text",
        lambda: lme4py.lmer(F, S, control={"tolerance": "a"}),
        OptionError,
        "control['tolerance'] must be a positive number, got 'a'.",
    ),
    (
        "control nan",
        lambda: lme4py.lmer(F, S, control={"tolerance": np.nan}),
        OptionError,
        "control['tolerance'] must be a positive number, got nan.",
    ),
    (
        "contrasts unknown",
        lambda: lme4py.lmer(
            "rating ~ temp + (1|judge)", W.assign(rating=1.0 * np.arange(len(W))), contrasts={"temp": "contr.sums"}
        ),
        OptionError,
        "contrasts 'contr.sums' are not known; use one of contr.treatment,",
    ),
    (
        "contrasts not factor",
        lambda: lme4py.lmer(F, S, contrasts={"Days": "contr.sum"}),
        OptionError,
        "`contrasts` names 'Days', which is not a factor. Use a factor of the",
    ),
    (
        "contrasts missing",
        lambda: lme4py.lmer(F, S, contrasts={"dose": "contr.sum"}),
        OptionError,
        "`contrasts` names 'dose', which is not in the formula. Use a factor",
    ),
    (
        "contrasts shape",
        lambda: lme4py.lmer(
            "rating ~ temp + (1|judge)", W.assign(rating=1.0 * np.arange(len(W))), contrasts={"temp": np.ones((5, 2))}
        ),
        OptionError,
        "the contrast matrix for the 2 levels 'cold', 'warm' has shape (5, 2);",
    ),
    (
        "contrasts list",
        lambda: lme4py.lmer(F, S, contrasts=["contr.sum"]),
        OptionError,
        '`contrasts` is of type list; give a dict such as {"treatment":',
    ),
    ("progress str", lambda: lme4py.lmer(F, S, progress="no"), OptionError, "`progress` is 'no'; give True or False."),
    (
        "glmer family",
        lambda: lme4py.glmer(B, C, family="binomal"),
        OptionError,
        "there is no family 'binomal'. Did you mean 'binomial' or 'nbinomial'",
    ),
    (
        "glmer family none",
        lambda: lme4py.glmer(B, C, family=None),
        OptionError,
        "`family` is of type NoneType; give its name, one of 'gaussian',",
    ),
    (
        "glmer link",
        lambda: lme4py.glmer(B, C, link="logits"),
        OptionError,
        "the binomial family has no link 'logits'. Did you mean 'logit' or",
    ),
    (
        "glmer link wrong family",
        lambda: lme4py.glmer(B, C, link="inverse"),
        OptionError,
        "the binomial family has no link 'inverse'; use one of 'logit',",
    ),
    (
        "glmer nAGQ 0.5",
        lambda: lme4py.glmer(B, C, nAGQ=0.5),
        OptionError,
        "nAGQ=0.5 must be 0, 1 (Laplace), or a number of quadrature points",
    ),
    (
        "glmer nAGQ -1",
        lambda: lme4py.glmer(B, C, nAGQ=-1),
        OptionError,
        "nAGQ=-1 must be 0, 1 (Laplace), or a number of quadrature points such",
    ),
    (
        "glmer nAGQ str",
        lambda: lme4py.glmer(B, C, nAGQ="7"),
        OptionError,
        "nAGQ='7' must be 0, 1 (Laplace), or a number of quadrature points",
    ),
    (
        "glmer nAGQ 1e6",
        lambda: lme4py.glmer(B, C, nAGQ=10**6),
        OptionError,
        "nAGQ=1000000 with 1 random effect(s) per group would need 1,000,000",
    ),
    (
        "glmer nAGQ True",
        lambda: lme4py.glmer(B, C, nAGQ=True),
        OptionError,
        "nAGQ=True must be 0, 1 (Laplace), or a number of quadrature points",
    ),
    (
        "glmer hessian",
        lambda: lme4py.glmer(B, C, hessian="obs"),
        OptionError,
        "hessian='obs' is not known. Use 'observed' (as glmmTMB) or 'expected'",
    ),
    (
        "glmer crossed agq",
        lambda: lme4py.glmer("incidence/size ~ 1 + (1|herd) + (1|period)", C, weights="size", nAGQ=5),
        OptionError,
        "nAGQ=5 needs one grouping factor, or two of which one is nested in",
    ),
    (
        "binomial y>trials",
        lambda: lme4py.glmer(
            "cbind(incidence, size - incidence) ~ period + (1|herd)", C.assign(incidence=C["size"] + 1)
        ),
        DataError,
        "the failures of 'cbind(incidence, size - incidence)': 56 of 56 values",
    ),
    (
        "binomial y 2",
        lambda: lme4py.glmer("incidence ~ period + (1|herd)", C),
        DataError,
        "the response 'incidence': 21 of 56 values (first: 2) that are outside",
    ),
    (
        "binomial negative",
        lambda: lme4py.glmer(B, C.assign(incidence=-C["incidence"])),
        DataError,
        "the successes of 'cbind(incidence, size - incidence)': 34 of 56",
    ),
    (
        "binomial 3 levels",
        lambda: lme4py.glmer("period ~ 1 + (1|herd)", C),
        DataError,
        "the response 'period' is text or a factor with 4 levels ('1', '2',",
    ),
    (
        "binomial constant",
        lambda: lme4py.glmer("z ~ period + (1|herd)", C.assign(z=1)),
        DataError,
        "the response 'z' has only successes (1) in all 56 rows used: the",
    ),
    (
        "binomial prop no weights",
        lambda: lme4py.glmer("I(incidence/size) ~ period + (1|herd)", C),
        DataError,
        "the response 'I(incidence/size)': 34 of 56 values (first: 0.142857)",
    ),
    (
        "binomial noninteger",
        lambda: lme4py.glmer("I(incidence/size) ~ period + (1|herd)", C, weights=np.full(len(C), 2.5)),
        DataError,
        "the weights: 56 of 56 values (first: 2.5) that are negative or not",
    ),
    (
        "poisson negative",
        lambda: lme4py.glmer("z ~ period + (1|herd)", C.assign(z=-1 * C["incidence"]), family="poisson"),
        DataError,
        "the response 'z': 34 of 56 values (first: -2) that are negative or",
    ),
    (
        "poisson fraction",
        lambda: lme4py.glmer("z ~ period + (1|herd)", C.assign(z=0.5 + C["incidence"]), family="poisson"),
        DataError,
        "the response 'z': 56 of 56 values (first: 2.5) that are negative or",
    ),
    (
        "poisson all zero",
        lambda: lme4py.glmer("z ~ period + (1|herd)", C.assign(z=0), family="poisson"),
        DataError,
        "all 56 values of the response 'z' are 0: the mean has no estimate",
    ),
    (
        "gamma zero",
        lambda: lme4py.glmer("z ~ period + (1|herd)", C.assign(z=C["incidence"]), family="gamma"),
        DataError,
        "the response 'z': 22 of 56 values (first: 0) that are zero or",
    ),
    (
        "nb negative",
        lambda: lme4py.glmer_nb("z ~ period + (1|herd)", C.assign(z=-1 * C["incidence"])),
        DataError,
        "the response 'z': 34 of 56 values (first: -2) that are negative or",
    ),
    (
        "ig negative",
        lambda: lme4py.glmer("z ~ period + (1|herd)", C.assign(z=-1.0), family="inverse_gaussian"),
        DataError,
        "the response 'z': 56 of 56 values (first: -1) that are zero or",
    ),
    (
        "clmm link",
        lambda: lme4py.clmm("rating ~ temp + (1|judge)", W, link="logitt"),
        OptionError,
        "clmm has no link 'logitt'. Did you mean 'logit'? Use one of 'logit',",
    ),
    (
        "clmm threshold",
        lambda: lme4py.clmm("rating ~ temp + (1|judge)", W, threshold="flexibel"),
        OptionError,
        "clmm has no threshold 'flexibel'. Did you mean 'flexible'? Use one of",
    ),
    (
        "clmm strings",
        lambda: lme4py.clmm(
            "rating ~ temp + (1|judge)", W.assign(rating=W["rating"].astype(str).map(lambda s: "c" + s))
        ),
        DataError,
        "the response 'rating' is text or an unordered categorical ('c1',",
    ),
    (
        "clmm two levels",
        lambda: lme4py.clmm(
            "r ~ temp + (1|judge)", W.assign(r=pd.Categorical((W["rating"].astype(int) > 2).astype(int), ordered=True))
        ),
        DataError,
        "the response 'r' has two categories in the rows used (0, 1), and clmm",
    ),
    (
        "clmm nAGQ",
        lambda: lme4py.clmm("rating ~ temp + (1|judge)", W, nAGQ=1.5),
        OptionError,
        "nAGQ=1.5 must be 1 (Laplace), a number of points of adaptive",
    ),
    (
        "predict missing column",
        lambda: sleep_fit().predict(S[["Days"]]),
        DataError,
        "column 'Subject' not found. The data have 1 column: Days.",
    ),
    (
        "predict missing x",
        lambda: sleep_fit().predict(S[["Subject"]]),
        DataError,
        "column 'Days' not found. The data have 1 column: Subject.",
    ),
    (
        "predict include",
        lambda: sleep_fit().predict(S, include_random=["Subj"]),
        OptionError,
        "include_random names 'Subj', which is no grouping factor of the model",
    ),
    (
        "predict include str",
        lambda: sleep_fit().predict(S, include_random="integrated"),
        OptionError,
        "include_random names 'integrated', which is no grouping factor of the",
    ),
    (
        "predict type",
        lambda: sleep_fit().predict(S, type="respons"),
        OptionError,
        "type must be 'response' or 'linear', got 'respons'. Did you mean",
    ),
    (
        "predict new_levels",
        lambda: sleep_fit().predict(S, new_levels="allow"),
        OptionError,
        "new_levels must be 'zero', 'error', 'missing', got 'allow'.",
    ),
    (
        "predict new level error",
        lambda: sleep_fit().predict(a(Subject="zzz"), new_levels="error"),
        DataError,
        "the new data hold groups that are missing or were not in the training",
    ),
    (
        "predict unseen fixed",
        lambda: cbpp_fit().predict(C.assign(period="9")),
        DataError,
        "the factor 'period' has 1 level(s) in the new data that were not in",
    ),
    (
        "predict interval",
        lambda: sleep_fit().predict(S, interval="conf"),
        OptionError,
        "interval must be None or 'confidence' or 'prediction', got 'conf'.",
    ),
    (
        "predict alpha",
        lambda: sleep_fit().predict(S, interval="confidence", alpha=2),
        OptionError,
        "`alpha` is 2; give a number between 0 and 1, such as 0.05.",
    ),
    (
        "predict alpha 0",
        lambda: sleep_fit().predict(S, interval="confidence", alpha=0),
        OptionError,
        "`alpha` is 0; give a number between 0 and 1, such as 0.05.",
    ),
    (
        "predict text x",
        lambda: sleep_fit().predict(a(Days="a")),
        DataError,
        "column 'Days' of the new data is text or a factor, but it was numeric",
    ),
    (
        "predict data none type",
        lambda: sleep_fit().predict(3),
        DataError,
        "`data` is of type int; give a pandas or polars DataFrame (or",
    ),
    (
        "conf_int alpha",
        lambda: sleep_fit().conf_int(alpha=2),
        OptionError,
        "`alpha` is 2; give a number between 0 and 1, such as 0.05.",
    ),
    (
        "conf_int alpha str",
        lambda: sleep_fit().conf_int(alpha="a"),
        OptionError,
        "`alpha` is 'a'; give a number between 0 and 1, such as 0.05.",
    ),
    (
        "conf_int method",
        lambda: sleep_fit().conf_int(method="wld"),
        OptionError,
        "method='wld' is not known. Did you mean 'wald'? Use one of wald,",
    ),
    (
        "conf_int parm",
        lambda: sleep_fit().conf_int(parm="Dayz"),
        OptionError,
        "There is no parameter 'Dayz'. Did you mean 'Days'? The parameters are",
    ),
    (
        "conf_int parm none",
        lambda: sleep_fit().conf_int(parm=[]),
        OptionError,
        "`parm` is empty; name a parameter, or use 'fixed', 'random' or 'all'.",
    ),
    (
        "coef_table ddf",
        lambda: sleep_fit().coef_table(ddf="kr"),
        OptionError,
        "ddf='kr' is not known. Did you mean 'kenward-roger'? Use one of",
    ),
    (
        "anova type",
        lambda: sleep_fit().anova(type=4),
        OptionError,
        "type=4 is not known; use 1, 2 or 3 (those of SAS and lmerTest), 'sequential'",
    ),
    (
        "contest shape",
        lambda: sleep_fit().contest([[1, 2, 3]]),
        OptionError,
        "`restrictions` has shape (1, 3); give one column for each of the 2",
    ),
    (
        "contest name",
        lambda: sleep_fit().contest("Dayz"),
        OptionError,
        "There is no fixed effect 'Dayz'. Did you mean 'Days'? The fixed",
    ),
    (
        "wald shape",
        lambda: sleep_fit().wald_test([[1, 2, 3]]),
        OptionError,
        "`restrictions` has shape (1, 3); give one column for each of the 2",
    ),
    (
        "wald name",
        lambda: sleep_fit().wald_test("Dayz"),
        OptionError,
        "There is no fixed effect 'Dayz'. Did you mean 'Days'? The fixed",
    ),
    (
        "wald value",
        lambda: sleep_fit().wald_test("Days", value="a"),
        OptionError,
        "`value` is 'a'; give a number, or one for each of the 1 row(s).",
    ),
    (
        "wald nan",
        lambda: sleep_fit().wald_test("Days", value=np.nan),
        OptionError,
        "`value` holds missing or infinite numbers; give finite ones.",
    ),
    (
        "resid type",
        lambda: sleep_fit().residuals("person"),
        OptionError,
        "type='person' is no kind of residual. Did you mean 'pearson'? Use one",
    ),
    ("simulate 0", lambda: sleep_fit().simulate(0), OptionError, "`n` is 0; give a whole number of at least 1."),
    ("simulate neg", lambda: sleep_fit().simulate(-1), OptionError, "`n` is -1; give a whole number of at least 1."),
    (
        "simulate seed",
        lambda: sleep_fit().simulate(2, seed="a"),
        OptionError,
        "`seed` is 'a'; give a whole number of at least 0.",
    ),
    (
        "refit short",
        lambda: sleep_fit().refit([1, 2]),
        OptionError,
        "the new response has shape (2,), but the model was fitted to 180",
    ),
    (
        "refit nan",
        lambda: sleep_fit().refit(np.full(n, np.nan)),
        DataError,
        "the new response holds 180 missing or infinite values; refit the",
    ),
    (
        "refit text",
        lambda: sleep_fit().refit(["a"] * n),
        DataError,
        "the new response holds values that are no numbers; give one number",
    ),
    (
        "glmm refit",
        lambda: cbpp_fit().refit(np.full(len(C), -1)),
        DataError,
        "the successes of 'cbind(incidence, size - incidence)': 56 of 56",
    ),
    ("bootstrap 0", lambda: sleep_fit().bootstrap(0), OptionError, "`n` is 0; give a whole number of at least 1."),
    (
        "bootstrap func",
        lambda: sleep_fit().bootstrap(10, func=3),
        OptionError,
        "`func` is 3; give a function of the result, or None for all",
    ),
    (
        "bootstrap type",
        lambda: sleep_fit().bootstrap(10, type="par"),
        OptionError,
        "type='par' is no kind of bootstrap. Use one of parametric,",
    ),
    (
        "bootstrap njobs",
        lambda: sleep_fit().bootstrap(10, n_jobs=0),
        OptionError,
        "`n_jobs` is 0; give a number of processes, -1 for all, or None.",
    ),
    (
        "profile parm",
        lambda: sleep_fit().profile("Dayz"),
        OptionError,
        "There is no parameter 'Dayz'. Did you mean 'Days'? The parameters are",
    ),
    (
        "profile alpha",
        lambda: sleep_fit().profile(alpha=2),
        OptionError,
        "`alpha` is 2; give a number between 0 and 1, such as 0.05.",
    ),
    (
        "icc component",
        lambda: lme4py.icc(sleep_fit(), component="Dayz"),
        OptionError,
        "component='Dayz' is no level of this model. Use '_cons', or 'all' for",
    ),
    (
        "icc alpha",
        lambda: lme4py.icc(sleep_fit(), alpha=2),
        OptionError,
        "`alpha` is 2; give a number between 0 and 1, such as 0.05.",
    ),
    (
        "icc nboot",
        lambda: lme4py.icc(sleep_fit(), n_boot=-1),
        OptionError,
        "`n_boot` is -1; give a whole number of at least 0.",
    ),
    ("icc not result", lambda: lme4py.icc(3), OptionError, "icc() needs a fitted mixed model, not int."),
    (
        "lrtest not result",
        lambda: lme4py.lrtest(3, sleep_fit()),
        OptionError,
        "the restricted model is of type int; give a fitted mixed model (or",
    ),
    (
        "lrtest different data",
        lambda: lme4py.lrtest(short_fit(), sleep_fit()),
        OptionError,
        "the restricted model was fitted to 100 rows and the full one to 180:",
    ),
    (
        "lrtest reml fixed",
        lambda: lme4py.lrtest(null_fit(), sleep_fit()),
        OptionError,
        "REML likelihoods of models with different fixed effects cannot be",
    ),
    (
        "lrtest same",
        lambda: lme4py.lrtest(sleep_fit(), sleep_fit()),
        OptionError,
        "both models have 6 parameters: none is a special case of the other;",
    ),
    (
        "lrtest glmm lmm",
        lambda: lme4py.lrtest(cbpp_fit(), sleep_fit()),
        OptionError,
        "the restricted model was fitted to 56 rows and the full one to 180:",
    ),
    (
        "influence group",
        lambda: sleep_fit().influence(group="Subj"),
        OptionError,
        "group='Subj' is no grouping factor of the model and no column of its data. Did you mean",
    ),
    (
        "influence method",
        lambda: sleep_fit().influence(method="exactly"),
        OptionError,
        "method='exactly' is not known. Did you mean 'exact'? Use one of",
    ),
    (
        "odds on lmm",
        lambda: poisson_fit().odds_ratios(),
        OptionError,
        "odds_ratios() needs the binomial family or ordered categories, logit",
    ),
    (
        "irr on logit",
        lambda: cbpp_fit().incidence_rate_ratios(),
        OptionError,
        "incidence_rate_ratios() needs the poisson or negative binomial",
    ),
    (
        "odds alpha",
        lambda: cbpp_fit().odds_ratios(alpha=5),
        OptionError,
        "`alpha` is 5; give a number between 0 and 1, such as 0.05.",
    ),
    (
        "plot kind",
        lambda: sleep_fit().plot("catterpillar"),
        OptionError,
        "kind='catterpillar' is no kind of plot. Did you mean 'caterpillar'?",
    ),
    (
        "plot variable",
        lambda: sleep_fit().plot(variable="Dayz"),
        OptionError,
        "There is no random effect 'Dayz'. Did you mean 'Days'? Use one of",
    ),
    (
        "tidy effects",
        lambda: sleep_fit().tidy(effects="rand"),
        OptionError,
        "effects names 'rand'. Use some of fixed, ran_pars, ran_vals,",
    ),
    (
        "cov_params type",
        lambda: sleep_fit().cov_params(type="CR9"),
        OptionError,
        "type='CR9' is no robust covariance. Did you mean 'CR3' or 'CR2' or",
    ),
    (
        "cov_params cluster",
        lambda: sleep_fit().cov_params(type="CR2", cluster="Subj"),
        OptionError,
        "cluster='Subj' is no grouping factor of the model and no column of its data. Did you mean",
    ),
    (
        "load_dataset",
        lambda: lme4py.load_dataset("sleepstudie"),
        DataError,
        "there is no data set 'sleepstudie'. Did you mean 'sleepstudy'?",
    ),
    (
        "load_dataset type",
        lambda: lme4py.load_dataset(3),
        DataError,
        "there is no data set 3. `list_datasets()` shows all 36.",
    ),
    (
        "mixed x",
        lambda: lme4py.mixed(S, "Reaction", "Dayz", "Subject"),
        DataError,
        "`x_fixed` names 'Dayz', which is no column of the data. Did you mean",
    ),
    (
        "mixed y",
        lambda: lme4py.mixed(S, "React", "Days", "Subject"),
        DataError,
        "`y` names 'React', which is no column of the data. Did you mean",
    ),
    (
        "mixed group",
        lambda: lme4py.mixed(S, "Reaction", "Days", "Subj"),
        DataError,
        "`group` names 'Subj', which is no column of the data. Did you mean",
    ),
    (
        "mixed group none",
        lambda: lme4py.mixed(S, "Reaction", "Days", None),
        OptionError,
        "`group` is empty; name the column whose levels are the groups.",
    ),
    (
        "mixed cov",
        lambda: lme4py.mixed(S, "Reaction", "Days", "Subject", cov_type="unstruct"),
        OptionError,
        "cov_type='unstruct' is not known. Did you mean 'unstructured'? Use",
    ),
    (
        "mixed alpha",
        lambda: lme4py.mixed(S, "Reaction", "Days", "Subject", alpha=2),
        OptionError,
        "`alpha` is 2; give a number between 0 and 1, such as 0.05.",
    ),
    (
        "mixed maxiter",
        lambda: lme4py.mixed(S, "Reaction", "Days", "Subject", maxiter=0),
        OptionError,
        "`maxiter` is 0; give a whole number of at least 1, such as 1000.",
    ),
    (
        "mixed tol",
        lambda: lme4py.mixed(S, "Reaction", "Days", "Subject", tol=-1),
        OptionError,
        "`tol` is -1; give a small positive number, such as 1e-9.",
    ),
    (
        "mixed swapped",
        lambda: lme4py.mixed("Reaction", S, "Days", "Subject"),
        OptionError,
        "`data` is the text 'Reaction'; the data come first, as a data frame, such as",
    ),
    (
        "mixed x_random",
        lambda: lme4py.mixed(S, "Reaction", "Days", "Subject", x_random="Dayz"),
        DataError,
        "`x_random` names 'Dayz', which is no column of the data. Did you mean",
    ),
    (
        "mixed group=x",
        lambda: lme4py.mixed(S, "Reaction", "Days", ["Subject", "Subject"]),
        OptionError,
        "`group` names a column twice: Subject, Subject; name each level once.",
    ),
    (
        "melogit trials",
        lambda: lme4py.melogit(C, "incidence", "period", "herd", trials="sizes"),
        DataError,
        "`trials` names 'sizes', which is no column of the data. Did you mean",
    ),
    (
        "melogit y>trials",
        lambda: lme4py.melogit(C.assign(incidence=99), "incidence", "period", "herd", trials="size"),
        DataError,
        "56 of 56 rows have more successes than trials (row 0: incidence = 99,",
    ),
    (
        "melogit no trials",
        lambda: lme4py.melogit(C, "incidence", "period", "herd"),
        DataError,
        "the response 'incidence': 21 of 56 values (first: 2) that are outside",
    ),
    (
        "mepoisson neg",
        lambda: lme4py.mepoisson(C.assign(z=-1), "z", "period", "herd"),
        DataError,
        "the response 'z': 56 of 56 values (first: -1) that are negative or",
    ),
    (
        "megamma zero",
        lambda: lme4py.megamma(C.assign(z=0.0), "z", "period", "herd"),
        DataError,
        "the response 'z': 56 of 56 values (first: 0) that are zero or",
    ),
    (
        "meglm family",
        lambda: lme4py.meglm(C, "incidence", "period", "herd", family="binomail"),
        OptionError,
        "there is no family 'binomail'. Did you mean 'binomial' or 'nbinomial'",
    ),
    (
        "mepoisson offset",
        lambda: lme4py.mepoisson(C, "incidence", "period", "herd", offset="lsize"),
        DataError,
        "`offset` names 'lsize', which is no column of the data. Did you mean",
    ),
    (
        "lformula",
        lambda: lme4py.lformula("Reaction ~ Dayz + (1|Subject)", S),
        DataError,
        "column 'Dayz' not found. Did you mean 'Days'? The data have 3",
    ),
    (
        "criterion theta",
        lambda: lme4py.lmm_criterion(lme4py.lformula(F, S))([1.0]),
        OptionError,
        "theta must hold 3 finite numbers (one per relative covariance",
    ),
    (
        "update bad",
        lambda: sleep_fit().update("~ . - Dayz +"),
        FormulaError,
        "the formula ends too early: something is missing after `+`; add a term",
    ),
    (
        "update column",
        lambda: sleep_fit().update(". ~ . + dose"),
        DataError,
        "column 'dose' not found. The data have 3 columns: Reaction, Days,",
    ),
    (
        "margins var",
        lambda: lme4py.Margins.linear_scale(sleep_fit()).dydx("Dayz"),
        OptionError,
        "'Dayz' is not in the fixed effects of this model. Did you mean 'Days'? They use",
    ),
    (
        "margins at",
        lambda: lme4py.Margins.linear_scale(sleep_fit(), at="means"),
        OptionError,
        "at='means' is not known. Did you mean 'mean'? Use one of",
    ),
    (
        "margins level",
        lambda: lme4py.Margins.linear_scale(sleep_fit(), level=95),
        OptionError,
        "`level` is 95; give a number between 0 and 1, such as 0.95.",
    ),
    (
        "margins method",
        lambda: lme4py.Margins.linear_scale(sleep_fit(), method="detla"),
        OptionError,
        "method='detla' is not known. Did you mean 'delta'? Use one of",
    ),
    (
        "margins random",
        lambda: lme4py.Margins.linear_scale(sleep_fit(), random="none"),
        OptionError,
        "random='none' is not known. Use one of 'zero', 'broad', 'integrate',",
    ),
    (
        "margins not fit",
        lambda: lme4py.Margins.linear_scale(3),
        OptionError,
        "a int is no fit that Margins knows: give a result of lme4py or of",
    ),
    (
        "margins atexog",
        lambda: lme4py.Margins.linear_scale(sleep_fit()).predict(atexog={"Dayz": [1]}),
        OptionError,
        "there is no variable 'Dayz' in the model. Did you mean 'Days'? It has",
    ),
    (
        "margins over",
        lambda: lme4py.Margins.linear_scale(sleep_fit()).predict(over="Subj"),
        OptionError,
        "over='Subj' is not a column of the model or of its data. Did you mean 'Subject'?",
    ),
    (
        "margins level of factor",
        lambda: lme4py.Margins.logit_scale(cbpp_fit()).predict(atexog={"period": ["9"]}),
        OptionError,
        "'9' is not a level of 'period'; its levels are '1', '2', '3', '4'.",
    ),
    (
        "margins weights",
        lambda: lme4py.Margins.linear_scale(sleep_fit(), weights="w"),
        OptionError,
        "weights='w' is not a column of the model or of its data",
    ),
    (
        "margins ddf",
        lambda: lme4py.Margins.linear_scale(sleep_fit(), ddf="kr"),
        OptionError,
        "ddf='kr' is not known. Did you mean 'kenward-roger'? Use one of",
    ),
]


@pytest.fixture(scope="module", autouse=True)
def fits():
    """The models that rows ask for are fitted before fitting is forbidden."""
    for made in (sleep_fit, short_fit, null_fit, cbpp_fit, poisson_fit):
        made()


@pytest.fixture
def no_fitting(monkeypatch):
    def forbidden(*_args, **_kw):
        pytest.fail("bad input reached the optimiser")

    monkeypatch.setattr(import_module("lme4py.fits.linear.steps"), "solve", forbidden)
    monkeypatch.setattr(import_module("lme4py.fits.generalised.criterion"), "solve_glmm", forbidden)


@pytest.mark.parametrize(("call", "error", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_bad_input(call, error, words, no_fitting):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(words)
    # An answer says what to do, and is not a relayed traceback.
    assert len(message) > 20
    assert "Traceback" not in message


def test_the_table_is_long():
    assert len(CASES) >= 120
    assert len({case[0] for case in CASES}) == len(CASES)
