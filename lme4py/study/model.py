"""Models made from parameters: to simulate from, and to plan studies with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lme4py.arguments import speaks
from lme4py.data.frame import read_frame
from lme4py.design.build import lformula, read_formula
from lme4py.design.design import Design
from lme4py.design.parts import part_formulas
from lme4py.design.smooths import refuse_smooth_design
from lme4py.errors import DataError, FormulaError, OptionError
from lme4py.families.ordered.ordinal import make_ordinal
from lme4py.families.registry import Family, family_with_parts, make_family, response_family
from lme4py.families.response import PartRows, ResponseData
from lme4py.fits.base import Fit
from lme4py.fits.generalised.categories.joined import joined_categories
from lme4py.fits.generalised.steps import glmm_fit
from lme4py.fits.linear.steps import lmm_fit
from lme4py.fits.pilot import carrier
from lme4py.fits.truth import read_truth
from lme4py.formula.deparse import names_in
from lme4py.formula.nodes import Name
from lme4py.inference.refits.simulate import simulate as simulate_fit
from lme4py.results import MEGLMResult, MixedResult
from lme4py.study.columns import frame_of, with_columns

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MadeModel", "make_model", "simulate"]

# Parts of `params` by the part of the model that a coefficient belongs to.
_SECTIONS = {"zero_inflation": "zi", "dispersion": "disp", "": "family"}


@dataclass(frozen=True, repr=False)
class MadeModel:
    """A model with parameters that are given, not estimated.

    Attributes
    ----------
    fit : Fit
        What carries the parameters (`beta`, `covariances`, `sigma`, ...) and fits responses; its certificate and
        standard errors are those of one simulated response and mean nothing.
    result : callable
        From a fit to the result that tests are given.
    """

    fit: Fit
    result: Callable[[Any], Any]

    @property
    def formula(self) -> str:
        """The formula as it was given."""
        return self.fit.design.formula

    @property
    def n_obs(self) -> int:
        """Number of rows."""
        return self.fit.design.n_obs

    @property
    def n_groups(self) -> dict[str, int]:
        """Number of levels of each grouping factor."""
        return self.fit.design.n_groups

    @property
    def data(self) -> pd.DataFrame:
        """The columns of the design, without the response."""
        return frame_of(self.fit.design)

    @property
    def params(self) -> dict[str, Any]:
        """The parameters by name, as `make_model` takes them."""
        return params_of(self.fit)

    def simulate(self, n: int = 1, seed: int | None = None) -> pd.DataFrame:
        """Responses drawn from the model, one column each.

        Parameters
        ----------
        n : int
        seed : int, optional
            Column i depends on the seed and i only.

        Returns
        -------
        DataFrame, shape (n_obs, n)
        """
        return simulate_fit(self.fit, n, seed)

    def __repr__(self) -> str:
        groups = ", ".join(f"{count} {name}" for name, count in self.n_groups.items())
        return f"<MadeModel: {self.formula}, {self.fit.family.name}, {self.n_obs} rows, {groups}>"


def params_of(fit: Fit) -> dict[str, Any]:
    """The parameters of a fit by name, as `make_model` takes them.

    Parameters
    ----------
    fit : Fit
    """
    design = fit.design
    out: dict[str, Any] = {"beta": dict(zip(design.x_names, fit.beta.tolist(), strict=True))}
    out["cov"] = {term.label: cov.tolist() for term, cov in zip(design.terms, fit.covariances, strict=True)}
    if fit.normal_errors or fit.has_residual:
        out["sigma"] = fit.sigma
    elif fit.log_dispersion is not None:
        out["dispersion"] = fit.dispersion
    if fit.thresholds is not None:
        out["thresholds"] = fit.thresholds.tolist()
    values = fit.family.other_values(fit.others).tolist()
    for name, value in zip(fit.family.nuisance_names, values, strict=True):
        part, _, column = name.rpartition(": ")
        out.setdefault(_SECTIONS[part], {})[column] = value
    return out


@speaks
def make_model(
    formula: str,
    data: Any,
    params: Mapping[str, Any],
    family: str | Family = "gaussian",
    *,
    link: str | None = None,
    reml: bool = True,
    nAGQ: int = 1,
    hessian: str = "observed",
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    ziformula: str | None = None,
    dispformula: str | None = None,
    threshold: str = "flexible",
) -> MadeModel:
    """A model with parameters that are given: to simulate from, and for `power`.

    Parameters
    ----------
    formula : str
        As for `lmer`; the response need not be in the data. Of ``cbind(s, size - s)`` and ``s / size`` (with
        ``weights="size"``) the column `size` must be there.
    data : data frame
        The rows of the study.
    params : mapping
        ``"beta"``: name of coefficient -> value; ``"sd"``: grouping factor (or term) -> standard deviation, or column
        -> standard deviation; ``"corr"``: grouping factor (or term) -> matrix, or one number for two effects; zero
        where it is not given; ``"cov"`` in the place of both; ``"sigma"`` or ``"dispersion"``: as `glmer` reports it;
        ``"thresholds"`` (ordinal); ``"zi"`` and ``"disp"``: coefficients of these parts; ``"family"``: other
        parameters of the family, such as the power of tweedie.
    family : str or Family
        "gaussian" with the identity link is a linear mixed model; "ordinal" a cumulative link model; "multinomial" has
        the names of `glmer`, such as "B: x", and needs the response in the data, whose values say which categories
        there are.
    link, weights, offset, contrasts, functions, ziformula, dispformula, threshold
        As for `glmer` and `clmm`.
    reml, nAGQ, hessian
        How simulated responses are fitted.

    Returns
    -------
    MadeModel

    Raises
    ------
    Lme4Error
        A parameter is missing, unknown or impossible; or no response of these parameters can be fitted.

    Examples
    --------
    >>> import lme4py, pandas as pd
    >>> rows = pd.DataFrame({"x": [0, 1, 2, 3] * 10, "g": [i // 4 for i in range(40)]})
    >>> params = {"beta": {"Intercept": 2.0, "x": 0.1}, "sd": {"g": 0.5}, "sigma": 1.0}
    >>> model = lme4py.make_model("y ~ x + (1 | g)", rows, params)
    >>> model
    <MadeModel: y ~ x + (1 | g), gaussian, 40 rows, 10 g>
    >>> model.simulate(3, seed=1).shape
    (40, 3)
    """
    frame = read_frame(data)
    parsed = read_formula(formula, frame.names)
    if parsed.response is None:
        raise FormulaError("the formula has no response; write it left of '~', as in 'y ~ x + (1 | group)'")
    reader = response_family(family)
    ordinal = reader.has_thresholds
    beside = {"offset": offset, "contrasts": contrasts, "functions": functions}
    if reader.is_joint:
        _check_categories(parsed.response, frame)
    beside_response = {} if reader.is_joint else _placeholders(parsed.response, frame, ordinal, params)
    data = with_columns(data, frame, beside_response)
    read = "ordinal" if ordinal else reader if reader.is_joint else None
    design = _design(formula, data, {**beside, "weights": weights}, read)
    refuse_smooth_design(design, "make_model()")
    if ordinal:
        categories = () if design.response is None else design.response.categories
        made: Family = make_ordinal(link or "logit", threshold, len(categories or ()))
    else:
        made = make_family(family, link)
    design, made = joined_categories(design, made)
    rows = _response_rows(design, made, parsed.response)
    parts = part_formulas(formula, ziformula, dispformula)
    if parts:
        design, rows, made = _with_parts(design, rows, made, parts, data, functions)
    truth = read_truth(design, made, params)
    linear = made.has_residual and made.link.is_identity and not parts
    if not linear:
        design = replace(design, response=rows)

    def fit_it(drawn: Design) -> Fit:
        if linear:
            return lmm_fit(drawn, reml)
        return glmm_fit(drawn, made, nAGQ=nAGQ, hessian=hessian, compare=False, thorough=False)

    return MadeModel(carrier(design, made, truth, rows, fit_it), MixedResult if linear else MEGLMResult)


def _placeholders(response: Any, frame: Any, ordinal: bool, params: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of the response that the data lack, and a plain response in the place of the one they have."""
    n = frame.n_rows
    if ordinal:
        if not isinstance(response, Name):
            raise FormulaError("an ordinal response is one column; write 'y ~ x + (1 | group)'")
        if response.name in frame.names:
            return {}
        cuts = np.size(params.get("thresholds", ())) if isinstance(params, Mapping) else 0
        if isinstance(params, Mapping) and isinstance(params.get("thresholds"), Mapping):
            cuts = len(params["thresholds"])
        if not cuts:
            raise OptionError("params has no 'thresholds'; give one fewer than there are categories.")
        return {response.name: np.arange(n) % (cuts + 1) + 1}
    if isinstance(response, Name):
        return {response.name: np.ones(n)}
    return {name: np.ones(n) for name in names_in(response) if name not in frame.names}


def _check_categories(response: Any, frame: Any) -> None:
    """Refuse data without the response of unordered categories, whose values say which these are."""
    missing = [name for name in names_in(response) if name not in frame.names]
    if missing:
        raise OptionError(
            f"the data have no column {missing[0]!r}, and the values of an unordered response say which categories "
            "there are (for counts, how many trials a row has); add it with any values, the baseline sorting first."
        )


def _design(formula: str, data: Any, beside: Mapping[str, Any], family: Any) -> Design:
    try:
        return lformula(formula, data, family=family, na_action="raise", **beside)
    except DataError as error:
        if "missing" in str(error):
            raise DataError(f"the rows of a study cannot have missing values: {error}") from None
        raise


def _response_rows(design: Design, family: Family, response: Any) -> ResponseData:
    """The response of a family without its values: trials, weights, categories."""
    zeros = np.zeros(design.n_obs)
    if family.is_joint and design.response is not None:
        return design.response
    if not family.has_trials:
        if design.y.ndim == 2:
            raise FormulaError(f"a response of two columns is for trials, not for the {family.name} family")
        categories = None if design.response is None else design.response.categories
        return ResponseData(zeros, None, design.weights, categories)
    if design.y.ndim == 2:
        trials = design.y.sum(axis=1)
        if not isinstance(response, Name) and (trials < 1).any():
            raise DataError("rows of the response have no trials; correct the columns whose sum they are")
        return ResponseData(zeros, trials, design.weights)
    if design.weights is not None:
        return ResponseData(zeros, design.weights)
    return ResponseData(zeros)


def _with_parts(
    design: Design, rows: ResponseData, family: Family, parts: Mapping[str, str], data: Any, functions: Any
) -> tuple[Design, ResponseData, Family]:
    """The design with the columns of further predictors."""
    made = {
        name: lformula(text, data, require_random=False, na_action="raise", functions=functions)
        for name, text in parts.items()
    }
    for name, own in made.items():
        if own.terms:
            raise FormulaError(
                f"the {name} part has random effects, which a made model cannot have yet; leave them out."
            )
    further = tuple(replace(own.predictors[0], name=name) for name, own in made.items())
    known = tuple(PartRows(name, own.X, own.offset) for name, own in made.items())
    design = replace(
        design,
        predictors=(design.predictors[0], *further),
        part_recipes=tuple(own.recipe for own in made.values()),
    )
    names = [(name, own.x_names) for name, own in made.items()]
    return design, replace(rows, parts=known), family_with_parts(family, names)


def simulate(
    formula: str,
    data: Any,
    params: Mapping[str, Any],
    family: str | Family = "gaussian",
    n: int = 1,
    seed: int | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Responses of a model that is given by its parameters, without a fit.

    Parameters
    ----------
    formula, data, params, family
        As for `make_model`.
    n : int
        Number of responses.
    seed : int, optional
        Column i depends on the seed and i only.
    **options
        Further arguments of `make_model`.

    Returns
    -------
    DataFrame, shape (n_obs, n)

    Examples
    --------
    >>> import lme4py
    >>> rows = {"g": [i // 4 for i in range(40)]}
    >>> params = {"beta": {"Intercept": 0.5}, "sd": {"g": 1.0}}
    >>> lme4py.simulate("y ~ 1 + (1 | g)", rows, params, family="poisson", n=2, seed=3).shape
    (40, 2)
    """
    return make_model(formula, data, params, family, **options).simulate(n, seed)
