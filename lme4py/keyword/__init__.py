"""The keyword front door: models from column names, reported as Stata does.

Each function builds a formula (`lme4py.keyword.formula`) and takes the same way as `lmer`, `glmer` and `clmm`.
"""

from lme4py.keyword.generalised import mecloglog, megamma, meglm, melogit, menbreg, mepoisson, meprobit
from lme4py.keyword.linear import mixed
from lme4py.keyword.meta import meta
from lme4py.keyword.multinomial import memlogit
from lme4py.keyword.ordinal import meologit, meoprobit

__all__ = [
    "mecloglog",
    "megamma",
    "meglm",
    "melogit",
    "memlogit",
    "menbreg",
    "meologit",
    "meoprobit",
    "mepoisson",
    "meprobit",
    "meta",
    "mixed",
]
