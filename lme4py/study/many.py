"""One model for each of many responses, or for each of many groups of rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lme4py.api import glmer, lmer
from lme4py.categories import clmm
from lme4py.chunks import chunk
from lme4py.data.frame import as_factor_column, read_frame
from lme4py.errors import Lme4Error, Lme4Warning, OptionError, did_you_mean
from lme4py.families.registry import Family, make_family, response_family
from lme4py.fits.base import Fit
from lme4py.fits.method import check_method
from lme4py.inference.estimates.coefficients import coef_table as table_of_fit
from lme4py.inference.estimates.variance import var_corr
from lme4py.linalg.types import FloatArray, IntArray
from lme4py.margins.results.multiplicity import adjusted, check_adjustment
from lme4py.progress import check_progress, tick, watching
from lme4py.study.block import BlockOfFits, FitsTogether
from lme4py.study.columns import pandas_column, with_columns
from lme4py.study.responses import read_responses
from lme4py.study.together import linear_together
from lme4py.study.together_generalised import generalised_fits

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ManyFits", "fit_by", "fit_many"]

_VARIANCES = ["group", "name1", "name2", "vcov", "sdcor"]
_COLUMNS = ["estimate", "std_error", "df", "statistic", "p_value"]
# Responses of a task where they are fitted one by one.
_FEW = chunk(20, 3)


@dataclass(frozen=True, repr=False)
class ManyFits:
    """Fits of one formula to many responses, or to many groups of rows.

    Attributes
    ----------
    names : tuple of str
        Of the responses, or the labels of the groups.
    coefficients : DataFrame
        Columns response, term, estimate, std_error, df, statistic, p_value; NaN where there is no fit.
    variances : DataFrame
        Columns response, group, name1, name2, vcov, sdcor, as `var_corr`.
    fits : DataFrame
        One row per response: n_obs, criterion, log_likelihood, sigma, gradient_norm, converged, singular, message
        (why there is no fit, or what was warned of).
    """

    names: tuple[Any, ...]
    coefficients: pd.DataFrame
    variances: pd.DataFrame
    fits: pd.DataFrame
    _single: Callable[[Any], Any] = field(repr=False, compare=False)
    _what: str = "response"

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.names)

    def __getitem__(self, name: Any) -> Any:
        """The result of one response, fitted by itself.

        Parameters
        ----------
        name : object

        Returns
        -------
        MixedResult or MEGLMResult
        """
        if name not in self.fits.index:
            hint = did_you_mean(str(name), [str(one) for one in self.names[:2000]])
            raise OptionError(f"there is no {self._what} {name!r}.{hint}")
        return self._single(name)

    def __repr__(self) -> str:
        bad = int((~self.fits["converged"]).sum())
        return f"<ManyFits: {len(self)} {self._what}s, {bad} without a certified fit, {self.n_failed} failed>"

    @property
    def criterion(self) -> pd.Series[float]:
        """REML criterion or -2 log-likelihood, by name; NaN where there is no fit."""
        return self.fits["criterion"]

    @property
    def converged(self) -> pd.Series[bool]:
        """Whether the optimum is certified, by name."""
        return self.fits["converged"]

    @property
    def failures(self) -> dict[Any, str]:
        """Why there is no fit, by name."""
        failed = self.fits[self.fits["criterion"].isna()]
        return dict(zip(failed.index, failed["message"], strict=True))

    @property
    def n_failed(self) -> int:
        """Number of responses without a fit."""
        return int(self.fits["criterion"].isna().sum())

    def coef_table(self, term: str | None = None, adjust: str | None = None) -> pd.DataFrame:
        """The fixed effects of all fits.

        Parameters
        ----------
        term : str, optional
            One coefficient, whose table has a row for each response.
        adjust : str, optional
            "bh", "holm", "bonferroni", "sidak" and others of `lme4py.adjust`: a column p_adjusted, over the responses
            for each term.

        Returns
        -------
        DataFrame
            Indexed by response and term; columns estimate, std_error, df, statistic, p_value.
        """

        import pandas as pd

        table = self.coefficients
        if adjust is not None:
            method = check_adjustment(adjust)
            table = table.assign(p_adjusted=np.nan)
            for _, own in table.groupby("term", sort=False):
                known = own["p_value"].dropna()
                table.loc[known.index, "p_adjusted"] = adjusted(known.to_numpy(), method)
        table = table.set_index([self._what, "term"])
        if term is None:
            return table
        terms = list(dict.fromkeys(table.index.get_level_values("term")))
        if term not in terms:
            hint = did_you_mean(str(term), terms)
            raise OptionError(f"there is no coefficient {term!r}.{hint} They are {', '.join(terms)}.")
        return pd.DataFrame(table[table.index.get_level_values("term") == term].droplevel("term"))

    def tidy(self, adjust: str | None = None) -> pd.DataFrame:
        """One row for each parameter of each response, with the certificate of its fit.

        Parameters
        ----------
        adjust : str, optional
            As in `coef_table`.

        Returns
        -------
        DataFrame
            Columns response (or the name of `by`), effect, group, term, estimate, std_error, df, statistic, p_value,
            (p_adjusted,) converged, singular.
        """
        import pandas as pd

        fixed = self.coef_table(adjust=adjust).reset_index().assign(effect="fixed", group="")
        random = self.variances.rename(columns={"sdcor": "estimate"}).assign(effect="ran_pars")
        same = random["name2"].isna()
        names = [
            f"sd__{a}" if one else f"cor__{a}.{b}"
            for a, b, one in zip(random["name1"], random["name2"], same, strict=True)
        ]
        random = random.assign(term=["sd__Observation" if n == "sd__None" else n for n in names])
        columns = [self._what, "effect", "group", "term", *_COLUMNS, *(["p_adjusted"] if adjust is not None else [])]
        whole = pd.concat([fixed, random], ignore_index=True).reindex(columns=columns)
        order = {name: i for i, name in enumerate(self.names)}
        whole = whole.sort_values(self._what, key=lambda c: c.map(order), kind="stable", ignore_index=True)
        return whole.join(self.fits[["converged", "singular"]], on=self._what)


def fit_many(
    formula: str,
    data: Any,
    responses: Any,
    family: str | Family = "gaussian",
    *,
    names: Sequence[str] | None = None,
    ddf: str | None = None,
    n_jobs: int | None = 1,
    progress: bool | None = None,
    **options: Any,
) -> ManyFits:
    """Fit one model to each of many responses of the same rows.

    Gaussian responses are fitted together from shared cross-products, where the model allows it (one grouping factor
    with up to four random effects, or several factors with few levels in all); binomial, Poisson, negative binomial and
    gamma ones with one random intercept or slope (Laplace approximation) together too, each from its own start. All
    others are fitted one after the other. Blocks of responses are spread over `n_jobs` processes. What fails in one
    response stays there.

    Parameters
    ----------
    formula : str
        Without a left side: ``"~ x + (1 | donor)"``.
    data : data frame
        The rows, in the order of those of the responses.
    responses : data frame, array or sparse matrix of shape (n, R), dict, AnnData, or path of a Parquet file
        One column for each response; a few columns at a time are in memory. Missing values leave rows out of the fit of
        their response.
    family : str or Family
        "gaussian" with the identity link: linear mixed models; any family of `glmer`, or "ordinal".
    names : sequence of str, optional
        Of the columns of an array or sparse matrix; of other kinds, those that are wanted.
    ddf : str, optional
        Of the tests: "satterthwaite" (linear models, the default), "kenward-roger" (one by one), "residual", "normal".
    n_jobs : int or None
        Processes.
    progress : bool, optional
        Show a bar; None shows one in a terminal or a notebook after a second.
    **options
        Further arguments of `lmer`, `glmer` or `clmm`: reml, weights, offset, contrasts, link, nAGQ, ...

    Returns
    -------
    ManyFits

    Examples
    --------
    >>> import lme4py, numpy as np
    >>> data = lme4py.load_dataset("sleepstudy")
    >>> noise = np.random.default_rng(1).normal(size=(180, 3))
    >>> many = lme4py.fit_many("~ Days + (1 | Subject)", data, noise, names=["a", "b", "c"])
    >>> many
    <ManyFits: 3 responses, 0 without a certified fit, 0 failed>
    >>> many.coef_table("Days").index.tolist()
    ['a', 'b', 'c']
    """
    if not isinstance(formula, str) or formula.split("~", 1)[0].strip() or "~" not in formula:
        raise OptionError(f"`formula` is {formula!r}; give one without a left side, such as '~ x + (1 | group)'.")
    method = None if ddf is None else check_method(ddf)
    frame = read_frame(data)
    read = read_responses(responses, names, frame.n_rows, frame.index if frame.labelled else None)
    fitter = _fitter(family, options)

    def make(name: Any, values: FloatArray) -> Any:
        return _single(formula, data, name, values, fitter)

    together: FitsTogether | None = None
    if fitter[0] is lmer and method != "kenward-roger":
        together = linear_together(formula, data, options, method)
    elif fitter[0] is glmer:
        together = generalised_fits(formula, data, read, fitter[1], method)
    size = _FEW if together is None else together.size(frame.n_rows)
    blocks = [read.names[i : i + size] for i in range(0, len(read.names), size)]
    tasks = ((names, read.columns(names)) for names in blocks)
    check_progress(progress)
    with watching("fit_many", progress, "responses", total=len(read.names)):
        parts = list(_spread(_Work(make, together, method), tasks, len(blocks), n_jobs))
    return _collected(read.names, parts, lambda name: make(name, read.columns([name])[:, 0]), "response")


def fit_by(
    formula: str,
    data: Any,
    by: str,
    family: str | Family = "gaussian",
    *,
    ddf: str | None = None,
    n_jobs: int | None = 1,
    progress: bool | None = None,
    **options: Any,
) -> ManyFits:
    """Fit one model to each group of rows.

    Parameters
    ----------
    formula : str
        With its response.
    data : data frame
    by : str
        The column whose values are the groups; rows without a value belong to none.
    family : str or Family
        As for `fit_many`.
    ddf : str, optional
        Of the tests.
    n_jobs : int or None
        Processes.
    progress : bool, optional
        Show a bar; None shows one in a terminal or a notebook after a second.
    **options
        Further arguments of `lmer`, `glmer` or `clmm`; `weights` and `offset` as columns or expressions.

    Returns
    -------
    ManyFits

    Examples
    --------
    >>> import lme4py
    >>> many = lme4py.fit_by("mAch ~ cses + (1 | school)", lme4py.load_dataset("Hsb82"), by="sector")
    >>> many.names
    ('Public', 'Catholic')
    >>> many.coef_table("cses")["estimate"].round(2).tolist()
    [2.78, 1.43]
    """
    import pandas as pd

    frame = read_frame(data)
    if by not in frame:
        raise OptionError(f"the data have no column {by!r}.{did_you_mean(str(by), frame.names)}")
    for name in ("weights", "offset"):
        if name in options and not isinstance(options[name], str | None):
            raise OptionError(f"{name}= of fit_by() is a column or an expression, so that each group finds its own.")
    method = None if ddf is None else check_method(ddf)
    column = as_factor_column(frame.column(by))
    rows = [np.flatnonzero(column.values == code) for code in range(len(column.levels))]
    kept = [(level, own) for level, own in zip(column.levels, rows, strict=True) if own.size]
    where = dict(kept)
    fitter = _fitter(family, options)
    table = data if isinstance(data, pd.DataFrame) else _as_pandas(frame)

    def make(level: Any, own: IntArray) -> Any:
        return fitter[0](formula, table.iloc[own], **fitter[1])

    names = tuple(level for level, _ in kept)
    tasks = (((level,), where[level][:, None]) for level in names)
    check_progress(progress)
    with watching("fit_by", progress, "groups", total=len(names)):
        parts = list(_spread(_Work(make, None, method), tasks, len(names), n_jobs, "groups"))
    return _collected(names, parts, lambda level: make(level, where[level]), by)


def _as_pandas(frame: Any) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: pandas_column(frame.column(name)) for name in frame.names}, index=frame.index)


def _fitter(family: str | Family, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that fits one response, and its arguments."""
    given = dict(options)
    if response_family(family).has_thresholds:
        return clmm, given
    made = make_family(family, given.get("link"))
    if made.has_residual and made.link.is_identity and not {"nAGQ", "hessian", "ziformula", "link"} & set(given):
        return lmer, given
    return glmer, {**given, "family": family}


def _single(
    formula: str, data: Any, name: Any, values: FloatArray, fitter: tuple[Callable[..., Any], dict[str, Any]]
) -> Any:
    """The result of one response."""
    frame = read_frame(data)
    column = str(name) if str(name) not in frame.names else f"response {name}"
    whole = with_columns(data, frame, {column: values})
    quoted = column if column.isidentifier() else f"`{column}`"
    return fitter[0](f"{quoted} {formula.strip()}", whole, **fitter[1])


# --- the work ---------------------------------------------------------------------------------------------------


Names = Sequence[Any]


@dataclass(frozen=True)
class _Work:
    """What makes the numbers of some responses, or of some groups of rows."""

    make: Callable[[Any, Any], Any]
    together: FitsTogether | None
    ddf: str | None

    def __call__(self, names: Names, values: NDArray[Any]) -> list[BlockOfFits]:
        """The fits of some names; `values` has a column for each: its response, or its rows."""
        if self.together is None:
            return [self._of_one(name, values[:, i]) for i, name in enumerate(names)]
        block, rest = self.together.fits(names, values)
        made = [] if block is None else [block]
        return [*made, *(self._of_one(names[i], values[:, i]) for i in rest)]

    def _of_one(self, name: Any, values: NDArray[Any]) -> BlockOfFits:
        """The numbers of one fit, or why there is none."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                fit: Fit = self.make(name, values).fit
                table = table_of_fit(fit, self.ddf)
            except (Lme4Error, ArithmeticError, np.linalg.LinAlgError) as error:
                return BlockOfFits.failed([name], f"{type(error).__name__}: {error}")
        told = [str(w.message) for w in caught if issubclass(w.category, Lme4Warning)]
        return BlockOfFits.of_fit(name, fit, table, var_corr(fit), " ".join(told))


def _spread(
    work: _Work, tasks: Iterator[tuple[Names, NDArray[Any]]], count: int, n_jobs: int | None, unit: str = "responses"
) -> Iterator[list[BlockOfFits]]:
    """The numbers of all tasks, in order; responses are made as they are needed."""
    if n_jobs == 1 or count == 1:
        done: Iterator[list[BlockOfFits]] = (work(*task) for task in tasks)
    else:
        from joblib import Parallel, delayed

        done = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(work)(*task) for task in tasks)
    for blocks in done:
        yield blocks
        tick(unit, sum(len(block.fits) for block in blocks))


def _collected(
    names: Iterable[Any], parts: list[list[BlockOfFits]], single: Callable[[Any], Any], what: str
) -> ManyFits:
    import pandas as pd

    blocks = [block for part in parts for block in part]
    order = {name: i for i, name in enumerate(names)}
    if not any(len(block.coefficients) or block.fits["criterion"].notna().any() for block in blocks):
        raise Lme4Error(f"none of {len(order)} fits succeeded; the first: {blocks[0].fits['message'].iloc[0]}")

    def joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
        whole = pd.concat([table for table in tables if len(table)], ignore_index=True)
        whole = whole.sort_values("response", key=lambda c: c.map(order), kind="stable", ignore_index=True)
        return whole.rename(columns={"response": what})

    some = any(len(block.variances) for block in blocks)
    fits = joined([block.fits for block in blocks]).set_index(what)
    coefficients = joined([block.coefficients for block in blocks] + [_nothing(blocks)])
    # Counts without random effects have no variances.
    none = pd.DataFrame(columns=["response", *_VARIANCES])
    variances = joined([block.variances for block in blocks]) if some else none.rename(columns={"response": what})
    return ManyFits(tuple(order), coefficients, variances, fits, single, what)


def _nothing(blocks: list[BlockOfFits]) -> pd.DataFrame:
    """Rows of NaN for responses without a fit, with the terms that the others have."""
    import pandas as pd

    failed = [name for block in blocks for name in block.fits.loc[block.fits["criterion"].isna(), "response"]]
    terms = next((list(dict.fromkeys(b.coefficients["term"])) for b in blocks if len(b.coefficients)), [])
    if not failed or not terms:
        return pd.DataFrame(columns=["response", "term", *_COLUMNS])
    rows = [(name, term) for name in failed for term in terms]
    return pd.DataFrame(rows, columns=["response", "term"]).assign(**dict.fromkeys(_COLUMNS, np.nan))
