"""Errors and warnings of lme4py.

Every message says what is wrong, with the name and the numbers, and ends with what to do.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable

__all__ = [
    "ConvergenceWarning",
    "DataError",
    "DesignError",
    "FormulaError",
    "IdentificationWarning",
    "Lme4Error",
    "Lme4Warning",
    "OptimaWarning",
    "OptionError",
    "RankWarning",
    "UnknownArgumentError",
    "did_you_mean",
    "foreign_attribute",
    "foreign_function",
    "misplaced_argument",
    "unknown_argument",
    "warn",
]


class Lme4Error(ValueError):
    """Base class of every error that lme4py raises on purpose."""


class FormulaError(Lme4Error):
    """A formula that cannot be read.

    Parameters
    ----------
    message : str
        What is wrong and what to do.
    formula : str, optional
        The formula as the user wrote it; shown below the message.
    start, end : int, optional
        Character positions in `formula`; a caret is drawn under ``formula[start:end]``.
    """

    def __init__(
        self, message: str, formula: str | None = None, start: int | None = None, end: int | None = None
    ) -> None:
        self.message = message
        self.formula = formula
        self.start = start
        self.end = end
        super().__init__(self._text())

    def _text(self) -> str:
        if self.formula is None or self.start is None:
            return self.message
        stop = max(self.end or 0, self.start + 1)
        # Long formulas are cut to a window, so that the caret stays on the screen.
        left = max(0, self.start - 60)
        window = self.formula[left : left + 120].replace("\n", " ").replace("\t", " ")
        width = min(stop - self.start, max(1, len(window) - (self.start - left)))
        return f"{self.message}\n    {window}\n    {' ' * (self.start - left)}{'^' * width}"

    def __reduce__(self) -> tuple[type[FormulaError], tuple[object, ...]]:
        return type(self), (self.message, self.formula, self.start, self.end)


class DataError(Lme4Error):
    """Data that cannot be used: a missing column, a wrong type, values out of range."""


class DesignError(Lme4Error):
    """A model that the data cannot identify, such as more random effects than observations."""


class OptionError(Lme4Error):
    """An argument outside its allowed values."""


class UnknownArgumentError(OptionError, TypeError):
    """An argument that a function does not have; also a `TypeError`, as Python's own."""


class Lme4Warning(UserWarning):
    """Base class of every warning that lme4py gives."""


class ConvergenceWarning(Lme4Warning):
    """The optimum could not be certified."""


class RankWarning(Lme4Warning):
    """Columns of the fixed effects were left out, because others determine them."""


class SpellingWarning(Lme4Warning):
    """Levels of a factor look like two spellings of one."""


class IdentificationWarning(Lme4Warning):
    """Some variances cannot be told apart by any data of this design: they are not given."""


class OptimaWarning(Lme4Warning):
    """The criterion has another minimum that is hardly higher: estimates and their errors are those of one of two.

    Of generalised models also where the likelihood is larger elsewhere without a maximum, and where there may be many
    maxima because the linear predictor has both signs with a link such as sqrt or inverse.
    """


class PenalisedWarning(Lme4Warning):
    """A number that takes the estimates as maxima of a likelihood was asked of a fit with priors."""


def warn(message: str, category: type[Lme4Warning]) -> None:
    """Warn at the line of the user's code that called lme4py, whatever lies between.

    Parameters
    ----------
    message : str
    category : type
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


# --- words of other programs ------------------------------------------------------------------------------------
# R (lme4, lmerTest, emmeans, broom), Stata, statsmodels, pymer4 and scikit-learn: what a user types from memory, and
# what it is here.

ATTRIBUTES: dict[str, str] = {
    "DHARMa": "quantile_residuals()",
    "simulateResiduals": "quantile_residuals()",
    "equation": 'report("page.html"), which has the equations',
    "feature_importances_": "coef_table()",
    "get_params": "lme4py.sklearn.MixedRegressor(formula).get_params()",
    "latex": "to_latex()",
    "test": 'contest("x = 0"), or wald_test("x = 0")',
    "test_zero_inflation": "quantile_residuals().test_zero_inflation()",
    "AIC": "aic",
    "AICc": "aic",
    "BIC": "bic",
    "VarCorr": "var_corr()",
    "allFit": "all_fit()",
    "as_data_frame": "tidy()",
    "bootMer": "bootstrap()",
    "bse_fe": "bse",
    "check_model": "check()",
    "coef_": "params",
    "coefficients": "params",
    "coefs": "coef_table()",
    "confint": "conf_int()",
    "cooks_distance": "influence().cooks_distance",
    "cov_re": "var_corr()",
    "deviance_residuals": 'residuals("deviance")',
    "df_residual": "df_resid",
    "contrast": 'contrasts(all_pairwise("x")) of lme4py.Margins.response(result, at="balanced")',
    "contrasts": 'contrasts(all_pairwise("x")) of lme4py.Margins.response(result, at="balanced")',
    "pairs": 'contrasts(all_pairwise("x")) of lme4py.Margins.response(result, at="balanced")',
    "pairwise": 'contrasts(all_pairwise("x")) of lme4py.Margins.response(result, at="balanced")',
    "difflsmeans": 'contrasts(all_pairwise("x")) of lme4py.Margins.response(result, at="balanced")',
    "emmeans": 'predict(atexog={"x": [...]}) of lme4py.Margins.response(result, at="balanced")',
    "emtrends": "dydx() of lme4py.Margins.response(result)",
    "estat": "icc(), vif() of lme4py, and others by name",
    "estat_icc": "icc()",
    "exp_coef": "tidy(exponentiate=True)",
    "f_test": "contest()",
    "fe_params": "params",
    "fitted": "fittedvalues",
    "fixed_effects_table": "coef_table()",
    "fixef": "params",
    "getME": 'part("X"), part("Z"), part("theta") and others',
    "get_response": 'part("response")',
    "find_predictors": 'part("predictors")',
    "find_random": 'part("random")',
    "get_influence": "influence()",
    "get_margeff": "dydx() of lme4py.Margins.response(result)",
    "get_prediction": 'predict(interval="confidence")',
    "ggpredict": 'predict(atexog={"x": [...]}) of lme4py.Margins.response(result)',
    "intercept_": "params",
    "irr": "incidence_rate_ratios()",
    "isREML": "reml",
    "isSingular": "is_singular",
    "lincom": 'contest("a - b = 0")',
    "logLik": "log_likelihood",
    "loglik": "log_likelihood",
    "logLike": "log_likelihood",
    "ls_means": 'predict(atexog={"x": [...]}) of lme4py.Margins.response(result, at="balanced")',
    "lsmeans": 'predict(atexog={"x": [...]}) of lme4py.Margins.response(result, at="balanced")',
    "marginal_effects": "dydx() of lme4py.Margins.response(result)",
    "margins": "lme4py.Margins.response(result)",
    "model_performance": "glance()",
    "mle_retvals": "opt_log",
    "ngrps": "n_groups",
    "nlcom": "evaluate() of lme4py.Margins.response(result)",
    "normalized_cov_params": "cov_params()",
    "or_": "odds_ratios()",
    "post_hoc": 'contrasts(all_pairwise("x")) of lme4py.Margins.response(result)',
    "posterior_means": 'ranef(type="mean")',
    "predict_proba": "predict()",
    "prior_weights": 'weights("prior")',
    "working_weights": 'weights("working")',
    "pvals": "pvalues",
    "r2": "r_squared()",
    "random_effects_cov": "ranef(conditional_se=True)",
    "ranef_var": "var_corr()",
    "rePCA": "re_pca()",
    "reffects": 'ranef(type="mean")',
    "refitML": "update(reml=False)",
    "remove_data": "slim()",
    "resid": "residuals()",
    "resid_pearson": 'residuals("pearson")',
    "rsquared": "r_squared()",
    "rstudent": "influence().rstudent",
    "score": "r_squared()",
    "standardize_parameters": "standardised()",
    "standardized": "standardised()",
    "summary2": "summary()",
    "t_test": 'contest("a - b = 0", joint=False)',
    "testparm": 'wald_test(["a", "b"])',
    "vcov": "cov_params()",
    "wald_test_terms": "anova()",
    "zvals": "tvalues",
}
"""What other programs call something of a result, and the lme4py call."""

FUNCTIONS: dict[str, str] = {
    "dredge": "all_subsets(result)",
    "Lmer": "lmer(formula, data), or glmer(formula, data, family)",
    "MixedLM": "mixed(data, y, x_fixed, group), or lmer(formula, data)",
    "glmmTMB": "glmer(formula, data, family)",
    "glmm": "glmer(formula, data, family)",
    "lm": "lmer(formula, data, fixed_only=True), or with a random effect such as (1 | g)",
    "glm": "glmer(formula, data, family, fixed_only=True), or with a random effect such as (1 | g)",
    "clm": "clmm(formula, data, fixed_only=True)",
    "clmm2": "clmm(formula, data)",
    "gls": 'lmer("y ~ x", data, residual="ar1(visit | id)")',
    "lmList": 'fit_by(formula, data, by="g", fixed_only=True)',
    "lme": 'lmer("y ~ x + (x | g)", data)',
    "mixedlm": "mixed(data, y, x_fixed, group), or lmer(formula, data)",
    "ordinal": "clmm(formula, data)",
    "polr": "clmm(formula, data)",
    "ranef": "result.ranef()",
    "coef": "result.params; result.coef() has those of every group",
    "summary": "result.summary()",
    "tidy": "result.tidy()",
    "glance": "result.glance()",
    "augment": "result.augment()",
    "predict": "result.predict()",
    "profile": "result.profile()",
    "ranova": "result.ranova()",
    "rand": "result.ranova()",
    "test": "result.wald_test()",
    "xtmixed": "mixed(data, y, x_fixed, group)",
    "xtlogit": "melogit(data, y, x_fixed, group)",
    "xtpoisson": "mepoisson(data, y, x_fixed, group)",
}
"""What other programs have as functions of their module, and the lme4py call."""

# Name -> the pairs (argument of lme4py, how it is written); the first pair whose argument the function has counts.
ARGUMENTS: dict[str, tuple[tuple[str, str], ...]] = {
    "ziformula": (("formula", "one of glmer(formula, data, family, ziformula='~ x')"),),
    "dispformula": (("formula", "one of lmer() and glmer(formula, data, family, dispformula='~ x')"),),
    "zi": (("ziformula", 'ziformula="~ x"'),),
    "zi_formula": (("ziformula", 'ziformula="~ x"'),),
    "disp": (("dispformula", 'dispformula="~ x"'),),
    "disp_formula": (("dispformula", 'dispformula="~ x"'),),
    "REML": (("reml", "reml=False for maximum likelihood"), ("method", 'method="ml" for maximum likelihood')),
    "alpha": (("level", "level=0.95"), ("conf_level", "conf_level=0.95")),
    "allow_new_levels": (
        ("new_levels", 'new_levels="zero" (the default), "missing" or "error"'),
        ("formula", 'result.predict(data, new_levels="zero")'),
        ("y", 'result.predict(data, new_levels="zero")'),
    ),
    "at": (("atexog", 'atexog={"x": [1, 2]}'), ("type", "at= of lme4py.Margins.response(result, at=...)")),
    "cl": (("n_jobs", "n_jobs=4"),),
    "cond_var": (("conditional_se", "conditional_se=True"),),
    "condVar": (("conditional_se", "conditional_se=True"),),
    "conf_level": (("alpha", "alpha=0.1 for 90% limits"), ("level", "level=0.9")),
    "covariance": (("cov_type", 'cov_type="unstructured"'), ("formula", "(1 + x | g), or (1 + x || g) without it")),
    "cov_type": (("vcov", 'vcov="CR2"'), ("vce", 'vce="robust"')),
    "eform": (("exponentiate", "exponentiate=True"), ("formula", "result.incidence_rate_ratios() or odds_ratios()")),
    "endog": (("y", "y="), ("formula", "a formula: lmer('y ~ x + (1 | g)', data)")),
    "exog": (("x_fixed", "x_fixed="), ("data", "data="), ("formula", "a formula: lmer('y ~ x + (1 | g)', data)")),
    "exposure": (("offset", 'offset="log(exposure)"'),),
    "groups": (("group", "group="), ("formula", "a term of the formula: (1 | g)")),
    "intpoints": (("nAGQ", "nAGQ=7"),),
    "irr": (
        ("exponentiate", "exponentiate=True"),
        ("formula", "result.incidence_rate_ratios()"),
        ("y", "result.incidence_rate_ratios()"),
    ),
    "level": (
        ("alpha", "alpha=0.1 for 90% limits"),
        ("conf_level", "conf_level=0.9"),
        ("formula", "result.conf_int(alpha=0.1) for 90% limits"),
    ),
    "mle": (("reml", "reml=False"), ("method", 'method="ml"')),
    "ml": (("reml", "reml=False"), ("method", 'method="ml"')),
    "method": (("reml", "reml=True for REML, reml=False for maximum likelihood"), ("ddf", "ddf=")),
    "na_rm": (("na_action", 'na_action="omit"'),),
    "newdata": (("formula", "result.predict(data)"), ("y", "result.predict(data)"), ("data", "data=")),
    "newX": (("data", "data="),),
    "X": (("data", "data="), ("x_fixed", "x_fixed=")),
    "n_agq": (("nAGQ", "nAGQ=7"),),
    "nagq": (("nAGQ", "nAGQ=7"),),
    "nsim": (("n_boot", "n_boot=1000"), ("n_sim", "n_sim=1000"), ("n", "n=1000")),
    "optimizer": (("control", 'control={"optimizer": "Nelder-Mead"}; result.all_fit() compares optimisers'),),
    "or_": (("exponentiate", "exponentiate=True"), ("formula", "result.odds_ratios()"), ("y", "result.odds_ratios()")),
    "baseoutcome": (("baseline", 'baseline="A"'),),
    "parameters": (("parm", 'parm=["x"]'),),
    "re_form": (
        ("include_random", "include_random=False for the fixed part, include_random=['g'] for some factors"),
        ("formula", "result.predict(include_random=False) for the fixed part"),
        ("y", "result.predict(include_random=False) for the fixed part"),
    ),
    "re_formula": (
        ("include_random", "include_random=False"),
        ("x_random", 'x_random=["x"]'),
        ("formula", "a term of the formula: (1 + x | g)"),
    ),
    "reformula": (("include_random", "include_random=False"),),
    "reml": (("method", 'method="ml" for maximum likelihood, method="reml"'),),
    "residuals": (
        ("residual", 'residual="ar1(t | id)"'),
        ("y", 'residual="ar1(t | id)" of lmer()'),
        ("formula", 'residual="ar1(t | id)" of lmer()'),
    ),
    "exponentiate": (
        ("formula", "result.tidy(exponentiate=True)"),
        ("y", "result.odds_ratios(), or result.tidy(exponentiate=True)"),
    ),
    "reffects": (("include_random", 'result.ranef(), or ranef(type="mean")'),),
    "random_only": (("include_fixed", "include_fixed=False"),),
    "rrr": (
        ("exponentiate", "exponentiate=True"),
        ("formula", "result.relative_risk_ratios()"),
        ("y", "result.relative_risk_ratios()"),
    ),
    "se_fit": (("se", "se=True"), ("interval", 'interval="confidence"')),
    "start_params": (("start", "start= (theta)"),),
    "subset": (("data", 'data=data[data["x"] > 0]'),),
    "test": (("ddf", "ddf="),),
    "transform": (("type", 'type="linear" for the linear predictor'),),
    "use_u": (("include_random", "include_random=True"), ("type", 'type="semiparametric"')),
    "vc_formula": (("x_random", 'x_random=["x"]'), ("formula", "a term of the formula: (1 | a) + (1 | b)")),
    "verbose": (("progress", "progress=True"),),
    "vcov": (("type", 'type="CR2"'), ("vce", 'vce="robust"')),
}
"""Arguments of other programs."""

VALUES: dict[str, tuple[str, ...]] = {
    "link": ("linear",),
    "lp": ("linear",),
    "xb": ("linear",),
    "eta": ("linear",),
    "mu": ("response",),
    "probs": ("prob",),
    "probability": ("prob",),
    "pr": ("response",),
    "mean": ("response",),
    "kr": ("kenward-roger",),
    "kroger": ("kenward-roger",),
    "kenward": ("kenward-roger",),
    "kenwardroger": ("kenward-roger",),
    "sat": ("satterthwaite",),
    "satt": ("satterthwaite",),
    "z": ("normal",),
    "asymptotic": ("normal",),
    "lme4": ("normal",),
    "wald": ("normal",),
    "t": ("residual",),
    "anova": ("residual",),
    "independent": ("diagonal",),
    "logistic": ("binomial", "logit"),
    "bernoulli": ("binomial",),
    "nb": ("nbinomial",),
    "negative_binomial": ("nbinomial",),
    "nbinom2": ("nbinomial",),
    "nbreg": ("nbinomial",),
    "nbinom1": ("nbinomial1",),
    "normal": ("gaussian",),
    "boot": ("bootstrap",),
    "bootstrap": ("boot",),
    "likelihood": ("profile",),
    "lrt": ("Chisq",),
    "observation": ("overall",),
    "asobserved": ("overall",),
    "means": ("mean",),
    "allow": ("zero",),
}
"""Values of other programs, and those of lme4py."""


def foreign_attribute(owner: str, name: str, known: Iterable[str], of: str = "result") -> str:
    """What to say of something that `owner` does not have.

    Parameters
    ----------
    owner : str
        Such as "MixedResult".
    name : str
    known : iterable of str
        Public names that there are.
    of : str
        How the object is called in the advice.

    Examples
    --------
    >>> foreign_attribute("MixedResult", "fixef", ["params"])
    "MixedResult has no 'fixef'; in lme4py it is result.params."
    """
    call = ATTRIBUTES.get(name, ATTRIBUTES.get(name.replace(".", "_")))
    words = list(known)
    # Advice is about results of fits; other objects have some of these methods too.
    if call is not None and (of == "result" or "lme4py." in call or call.partition("(")[0] in words):
        spelled = call if "lme4py." in call else f"{of}.{call}"
        return f"{owner} has no {name!r}; in lme4py it is {spelled}."
    return f"{owner} has no {name!r}.{did_you_mean(name, words)}".rstrip()


def foreign_function(name: str, known: Iterable[str]) -> str:
    """What to say of a function that the package does not have.

    Parameters
    ----------
    name : str
    known : iterable of str
        Public names of the package.

    Examples
    --------
    >>> foreign_function("VarCorr", [])
    "lme4py has no 'VarCorr'; it is result.var_corr()."
    """
    call = FUNCTIONS.get(name)
    if call is None and name in ATTRIBUTES:
        call = ATTRIBUTES[name] if "lme4py." in ATTRIBUTES[name] else f"result.{ATTRIBUTES[name]}"
    if call is not None:
        return f"lme4py has no {name!r}; it is {call}."
    return f"module 'lme4py' has no attribute {name!r}.{did_you_mean(name, known)}"


def unknown_argument(door: str, name: str, known: Iterable[str]) -> UnknownArgumentError:
    """The error for an argument that a function does not have; those of other programs come with lme4py's.

    Parameters
    ----------
    door : str
        Name of the function.
    name : str
    known : iterable of str
        Arguments that it has.

    Examples
    --------
    >>> print(unknown_argument("lmer", "REML", ["formula", "data", "reml"]))
    lmer() has no argument 'REML'; in lme4py it is reml=False for maximum likelihood.
    """
    words = [word for word in known if word not in ("self", "cls")]
    for argument, spelled in ARGUMENTS.get(name, ARGUMENTS.get(name.replace(".", "_"), ())):
        if argument in words:
            return UnknownArgumentError(f"{door}() has no argument {name!r}; in lme4py it is {spelled}.")
    hint = did_you_mean(name, words)
    return UnknownArgumentError(f"{door}() has no argument {name!r}.{hint} Its arguments are {', '.join(words)}.")


def misplaced_argument(door: str, error: str, known: Iterable[str]) -> UnknownArgumentError:
    """The error for arguments that are given twice, are too many, or lack one that is needed.

    Parameters
    ----------
    door : str
        Name of the function.
    error : str
        What Python says of the call.
    known : iterable of str
        Arguments in their order.

    Examples
    --------
    >>> print(misplaced_argument("mixed", "multiple values for argument 'data'", ["data", "y", "group"]))
    mixed(): multiple values for argument 'data'. Its arguments, in this order, are data, y, group.
    """
    return UnknownArgumentError(f"{door}(): {error}. Its arguments, in this order, are {', '.join(known)}.")


def did_you_mean(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return ``" Did you mean 'a' or 'b'?"``, or ``""`` where nothing is close; words of other programs are known.

    Parameters
    ----------
    name : str
        The word that was not found.
    known : iterable of str
        The words that exist.
    limit : int
        How many suggestions at most.

    Returns
    -------
    str

    Examples
    --------
    >>> did_you_mean("satterwaite", ["satterthwaite", "normal"])
    " Did you mean 'satterthwaite'?"
    >>> did_you_mean("KR", ["satterthwaite", "kenward-roger"])
    " Did you mean 'kenward-roger'?"
    """
    words = list(known)
    meant = [word for word in VALUES.get(name.casefold(), ()) if word in words]
    close = meant or difflib.get_close_matches(name, words, n=limit, cutoff=0.6)
    if not close:
        folded = {word.casefold(): word for word in words}
        close = [folded[name.casefold()]] if name.casefold() in folded else []
    if not close:
        return ""
    return " Did you mean " + " or ".join(repr(word) for word in close) + "?"
