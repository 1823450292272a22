"""The lists of what is timed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench_models import Model, Size

_INSTEVAL = "y ~ service + (1 | s) + (1 | d)"

LMM_MODELS: tuple[Model, ...] = (
    Model(
        "sleepstudy",
        "Reaction ~ Days + (Days | Subject)",
        True,
        ("Reaction", "Days", "Subject"),
        "sleepstudy",
        "small",
        target=0.004,
        reference=1743.628271959,
        engine_target=0.0015,
    ),
    Model(
        "penicillin",
        "diameter ~ 1 + (1 | plate) + (1 | sample)",
        True,
        ("diameter", "plate", "sample"),
        "Penicillin",
        "small",
        target=0.004,
    ),
    Model(
        "pastes",
        "strength ~ 1 + (1 | batch/cask)",
        True,
        ("strength", "batch", "cask"),
        "Pastes",
        "small",
        target=0.004,
    ),
    Model("dyestuff", "Yield ~ 1 + (1 | Batch)", True, ("Yield", "Batch"), "Dyestuff", "small", target=0.004),
    Model(
        "hsb82",
        "mAch ~ meanses * cses + sector * cses + (cses | school)",
        True,
        ("mAch", "meanses", "cses", "sector", "school"),
        "Hsb82",
        "small",
        target=0.010,
    ),
    Model(
        "chem97",
        "score ~ 1 + (1 | school) + (1 | lea)",
        True,
        ("score", "school", "lea"),
        "Chem97",
        "small",
        target=0.03,
    ),
    Model(
        "chem97_gcse",
        "score ~ gcsecnt + (1 | school) + (1 | lea)",
        False,
        ("score", "gcsecnt", "school", "lea"),
        "Chem97",
        "small",
        target=0.03,
        reference=141685.56021,
    ),
    Model("insteval", _INSTEVAL, False, ("y", "service", "s", "d"), "InstEval", "insteval", target=0.4),
    Model(
        "insteval_dept",
        _INSTEVAL + " + (1 | dept:service)",
        False,
        ("y", "service", "s", "d", "dept"),
        "InstEval",
        "insteval",
        target=0.6,
        max_evaluations=12,
    ),
    Model(
        "insteval_slope",
        _INSTEVAL + " + (1 + service | dept)",
        False,
        ("y", "service", "s", "d", "dept"),
        "InstEval",
        "insteval",
        target=1.5,
        reference=237647.0584,
    ),
    Model("intercept_500k", "y ~ x + (1 | g)", True, ("y", "x", "g"), "one_factor_500k", "large", target=0.4),
    Model("slope_500k", "y ~ x + (x | g)", True, ("y", "x", "g"), "one_factor_500k", "large", target=1.2),
    Model("slope_1m", "y ~ x + (x | g)", True, ("y", "x", "g"), "one_factor_1m", "large", target=0.8),
    Model(
        "crossed_500k", "y ~ x + (1 | a) + (1 | b)", True, ("y", "x", "a", "b"), "crossed_500k", "crossed", target=20.0
    ),
    Model(
        "crossed_898k", "y ~ x + (1 | a) + (1 | b)", True, ("y", "x", "a", "b"), "crossed_898k", "crossed", target=12.0
    ),
    Model("workers_firms", "y ~ x + (1 | worker) + (1 | firm)", True, ("y", "x", "worker", "firm"), "firms", "crossed"),
)


_CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
_CBPP_PLAIN = "cbind(incidence, healthy) ~ period + (1 | herd)"
_CBPP_COLUMNS = ("incidence", "size", "healthy", "period", "herd")
_CONTRACEPTION = "use ~ age + I(age^2) + urban + livch"
_CONTRACEPTION_COLUMNS = ("use", "age", "urban", "livch", "district")
_VERBAGG_COLUMNS = ("r2", "Anger", "Gender", "btype", "situ", "id", "item")


def _glmm(
    name: str,
    formula: str,
    columns: tuple[str, ...],
    data: str,
    size: Size,
    target: float,
    *,
    family: str = "binomial",
    link: str = "logit",
    reference: float | None = None,
    nagq: int = 1,
    plain_formula: str = "",
) -> Model:
    """A model of the table of generalised models; each may take 30 outer evaluations."""
    return Model(
        name,
        formula,
        False,
        columns,
        data,
        size,
        target=target,
        reference=reference,
        max_evaluations=30,
        family=family,
        link=link,
        nagq=nagq,
        plain_formula=plain_formula,
    )


GLMM_MODELS: tuple[Model, ...] = (
    _glmm(
        "cbpp", _CBPP, _CBPP_COLUMNS, "cbpp_counts", "small", 0.008, reference=184.0525636, plain_formula=_CBPP_PLAIN
    ),
    _glmm(
        "cbpp_agq9",
        _CBPP,
        _CBPP_COLUMNS,
        "cbpp_counts",
        "small",
        0.008,
        reference=183.96674,
        nagq=9,
        plain_formula=_CBPP_PLAIN,
    ),
    _glmm(
        "contraception",
        _CONTRACEPTION + " + (1 | district)",
        _CONTRACEPTION_COLUMNS,
        "Contraception",
        "medium",
        0.020,
    ),
    _glmm(
        "contraception_slope",
        _CONTRACEPTION + " + (urban | district)",
        _CONTRACEPTION_COLUMNS,
        "Contraception",
        "medium",
        0.040,
        reference=2360.610285,
    ),
    _glmm(
        "verbagg",
        "r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)",
        _VERBAGG_COLUMNS,
        "VerbAgg",
        "slow",
        0.120,
        reference=8151.39972,
    ),
    _glmm(
        "verbagg_two_way",
        "r2 ~ (Anger + Gender + btype + situ)^2 + (1 | id) + (1 | item)",
        _VERBAGG_COLUMNS,
        "VerbAgg",
        "slow",
        0.5,
        reference=8124.18174,
        plain_formula="r2 ~ Anger + Gender + btype + situ + Anger:Gender + Anger:btype + Anger:situ + Gender:btype"
        " + Gender:situ + btype:situ + (1 | id) + (1 | item)",
    ),
    _glmm(
        "grouseticks",
        "TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)",
        ("TICKS", "YEAR", "cHEIGHT", "BROOD", "INDEX", "LOCATION"),
        "grouseticks",
        "medium",
        0.060,
        family="poisson",
        link="log",
        reference=1780.54266,
    ),
    _glmm("gamma_log", "y ~ x + (1 | g)", ("y", "x", "g"), "gamma_300", "small", 0.015, family="gamma", link="log"),
    _glmm(
        "salamanders_nb",
        "count ~ spp * mined + (1 | site)",
        ("count", "spp", "mined", "site"),
        "Salamanders",
        "medium",
        0.030,
        family="nbinomial",
        link="log",
    ),
    _glmm("logit_200k", "y ~ x + (1 | g)", ("y", "x", "g"), "logit_200k", "large", 1.0),
    _glmm(
        "contraception_slope_agq9",
        _CONTRACEPTION + " + (urban | district)",
        _CONTRACEPTION_COLUMNS,
        "Contraception",
        "medium",
        0.6,
        nagq=9,
    ),
)


def _clmm(name: str, formula: str, columns: tuple[str, ...], size: Size, target: float | None, **more: Any) -> Model:
    """An ordinal model with logit link; `columns` begins with the name of the data."""
    return Model(
        name, formula, False, columns[1:], columns[0], size, target=target, family="ordinal", link="logit", **more
    )


_WINE = "rating ~ temp + contact + (1 | judge)"
_WINE_COLUMNS = ("wine", "rating", "temp", "contact", "judge")

ORDINAL_MODELS: tuple[Model, ...] = (
    _clmm("wine", _WINE, _WINE_COLUMNS, "small", 0.020, reference=163.130825553),
    _clmm("wine_agq7", _WINE, _WINE_COLUMNS, "small", None, nagq=7),
    _clmm(
        "wine_slope",
        "rating ~ temp + contact + (1 + temp | judge)",
        _WINE_COLUMNS,
        "medium",
        0.2,
        reference=163.092790510,
    ),
    _clmm("soup", "SURENESS ~ PROD + (1 | RESP)", ("soup", "SURENESS", "PROD", "RESP"), "medium", None),
    _clmm(
        "soup_two_terms",
        "SURENESS ~ PROD + (1 | RESP) + (1 | RESP:PROD)",
        ("soup", "SURENESS", "PROD", "RESP"),
        "slow",
        None,
    ),
    _clmm("judges_50k", "y ~ x + (1 | judge)", ("judges_50k", "y", "x", "judge"), "large", 2.0),
)


def _action(name: str, like: Model, size: Size, rivals: tuple[str, ...], **more: Any) -> Model:
    """Something that is asked of the model `like`."""
    fitted = replace(like, target=None, reference=None, max_evaluations=None, engine_target=None)
    return replace(fitted, name=name, size=size, rivals=rivals, **more)


_SLEEP = LMM_MODELS[0]
_CBPP_MODEL = GLMM_MODELS[0]
_EXAM = Model(
    "exam",
    "normexam ~ standLRT + (standLRT | school)",
    True,
    ("normexam", "standLRT", "school"),
    "Exam",
    "medium",
)
_CROSSED = Model("crossed", "y ~ x + (1 | a) + (1 | b)", True, ("y", "x", "a", "b"), "crossed_4k", "medium")
_SCORES = Model(
    "scores",
    "score ~ age + female + treated + school + (1 | student)",
    True,
    ("score", "age", "female", "treated", "school", "student"),
    "scores_400",
    "small",
)
_LARGE = Model("rows_100k", "y ~ x + (x | g)", True, ("y", "x", "g"), "one_factor:100000:10000", "medium")

# lme4's limits are interpolated by splines and its optimum stops early: 1e-3. The spread of a bootstrap of m replicates
# has a relative error of 1 / sqrt(2 m): five of these. Linear algebra of the same model: the digits of lme4's optimum.
INFERENCE_MODELS: tuple[Model, ...] = (
    _action("kr_sleepstudy", _SLEEP, "small", ("pbkrtest",), action="kenward_roger", agreement=1e-4),
    _action(
        "grid_56",
        _SCORES,
        "small",
        ("emmeans",),
        action="grid",
        detail="age=20:74:28;female=0:1:2",
        target=0.010,
        agreement=1e-4,
    ),
    _action("profile_sleepstudy", _SLEEP, "medium", ("lme4",), action="profile", target=0.15, agreement=1e-3),
    _action("influence_rows", _SLEEP, "medium", ("lme4",), action="influence", target=0.1, agreement=1e-2),
    _action("profile_cbpp", _CBPP_MODEL, "slow", ("lme4",), action="profile", target=0.5, agreement=1e-3),
    _action(
        "bootstrap_sleepstudy",
        _SLEEP,
        "slow",
        ("lme4",),
        action="bootstrap",
        detail="10000,500",
        target=3.0,
        agreement=0.16,
    ),
    _action(
        "bootstrap_cbpp",
        _CBPP_MODEL,
        "slow",
        ("lme4",),
        action="bootstrap",
        detail="1000,100",
        target=5.0,
        agreement=0.35,
    ),
    _action(
        "grid_1000_of_100k",
        _LARGE,
        "slow",
        ("emmeans",),
        action="grid",
        detail="x=-2:2:1000",
        target=1.0,
        agreement=1e-4,
    ),
    _action("kr_exam", _EXAM, "large", ("pbkrtest",), action="kenward_roger", target=0.1, agreement=1e-4),
    _action("kr_crossed", _CROSSED, "large", ("pbkrtest",), action="kenward_roger", target=0.1, agreement=1e-4),
    _action("kr_insteval", replace(LMM_MODELS[7], reml=True), "large", (), action="kenward_roger", target=10.0),
)
