"""A source of rows that is defined here alone: it fits, refuses what needs rows by name, and predicts."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lme4py
from lme4py.data.frame import Frame, read_frame
from lme4py.data.sources import RowBlock, RowSource, Schema
from lme4py.errors import DataError, Lme4Error, OptionError
from lme4py.results import MixedResult

FORMULA = "Reaction ~ Days + (Days | Subject)"


class Shelves(RowSource):
    """Rows in a list of dicts, each of which is a block; one of them is empty."""

    place = "shelves"

    def __init__(self, *parts: dict[str, object]) -> None:
        self.parts = parts

    def schema(self) -> Schema:
        return Schema(tuple(self.parts[0]))

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[RowBlock]:
        for number, part in enumerate(self.parts):
            yield RowBlock(read_frame({name: part[name] for name in columns or part}), f"shelf {number}")


def shelves(order: Sequence[int] = (0, 1, 2, 3)) -> Shelves:
    data = lme4py.load_dataset("sleepstudy")
    cuts = [slice(0, 17), slice(17, 17), slice(17, 100), slice(100, 180)]
    parts = [{name: data[name].iloc[cuts[i]].tolist() for name in data} for i in order]
    return Shelves(*parts)


@pytest.fixture(scope="module")
def streamed() -> MixedResult:
    return lme4py.lmer(FORMULA, shelves())


@pytest.fixture(scope="module")
def whole() -> MixedResult:
    data = lme4py.load_dataset("sleepstudy")
    # Text, as on the shelves, so that the levels are the same objects.
    return lme4py.lmer(FORMULA, {name: data[name].tolist() for name in data})


@pytest.mark.parametrize(
    "what",
    [
        "criterion",
        "sigma",
        "theta",
        lambda fit: fit.params.to_numpy(),
        lambda fit: fit.cov_params().to_numpy(),
        lambda fit: fit.var_corr()[["vcov", "sdcor"]].to_numpy(float),
        lambda fit: fit.ranef().to_numpy(),
        lambda fit: fit.ranef(conditional_se=True)[1].to_numpy(),
        lambda fit: fit.coef_table().to_numpy(float),
        lambda fit: fit.coef_table(ddf="kenward-roger").to_numpy(float),
        lambda fit: fit.conf_int().to_numpy(float),
        lambda fit: fit.anova().to_numpy(float),
        lambda fit: fit.profile().conf_int().to_numpy(float),
        lambda fit: fit.predict({"Days": [3.0, 11.0], "Subject": ["308", "999"]}, include_random=False).to_numpy(),
        lambda fit: fit.predict({"Days": [3.0], "Subject": ["308"]}, interval="confidence").to_numpy(float),
    ],
)
def test_equals_the_fit_in_memory(streamed, whole, what) -> None:
    ask = what if callable(what) else lambda fit: getattr(fit, what)
    # The same optimum of the same function: two sums of the same rows differ by rounding.
    assert_allclose(ask(streamed), ask(whole), rtol=1e-8, atol=1e-9)


def test_says_where_the_rows_were(streamed, whole) -> None:
    rows = streamed.rows
    assert (rows.where, rows.passes, rows.blocks, rows.n_rows, rows.n_obs) == ("shelves", 2, 3, 180, 180)
    assert whole.rows.where == "memory"
    assert "shelves, 2 passes over 3 blocks" in str(streamed.summary())


def test_order_of_blocks_plays_no_role(streamed) -> None:
    other = lme4py.lmer(FORMULA, shelves((3, 0, 2, 1)))
    # Sums in another order.
    assert_allclose(other.params, streamed.params, rtol=1e-12)
    assert_allclose(other.criterion, streamed.criterion, rtol=1e-12)
    assert other.ranef().index.tolist() == streamed.ranef().index.tolist()


# Of the public names of a result those that need rows; then what this model does not have: other residuals,
# smooths, several responses.
NEED_ROWS = {"Zt", "augment", "bootstrap", "check", "hatvalues", "icc", "icc_table", "influence"} | {
    *("lrtest_no_random", "model_matrix", "quantile_residuals", "r_squared", "ranova", "refit"),
    *("simulate", "standardised", "weights"),
}
SMOOTHS = {"concurvity", "smooth_curves", "smooth_difference", "smooths"}
OTHER_REFUSALS = SMOOTHS | {
    "equal_effects",
    "response_correlations",
    "heterogeneity",
    "residual_covariance",
    "residual_correlation",
    "residual_table",
}
GIVEN = {
    "all_fit": {"optimizers": ["trust-region", "L-BFGS-B"], "n_starts": 1},
    "bootstrap": {"n": 3},
    "contest": {"L": "Days"},
    "part": {"name": "Sigma"},
    "refit": {"y": np.zeros(180)},
    "smooth_difference": {"first": "s(x):a", "second": "s(x):b"},
    "wald_test": {"restrictions": "Days = 10"},
    "with_call": {"call": None},
}
PUBLIC = [name for name in dir(MixedResult) if not name.startswith("_")]


def outcome(fit: object, name: str) -> object:
    found = getattr(fit, name)
    return found(**GIVEN.get(name, {})) if inspect.isroutine(found) else found


def numbers(value: object) -> list[float]:
    """The numbers in a result, wherever they are."""
    if isinstance(value, bool | str | None):
        return []
    if isinstance(value, pd.DataFrame | pd.Series):
        return [one for cell in value.to_numpy().ravel().tolist() for one in numbers(cell)]
    if isinstance(value, dict):
        return [one for inner in value.values() for one in numbers(inner)]
    if isinstance(value, list | tuple | np.ndarray):
        return [one for inner in np.asarray(value, dtype=object).ravel().tolist() for one in numbers(inner)]
    return [float(value)] if isinstance(value, int | float | np.number) else []


# What goes through the rows where they are, when it is asked for.
LAZY = {"fittedvalues", "predict", "residuals"}

# What no two runs agree in (the path of the optimiser), or what says where the rows were.
PATHS = {"opt_log", "certificate", "rows", "to_dict", "all_fit"}


@pytest.mark.parametrize("name", sorted({*PUBLIC} - NEED_ROWS - LAZY - OTHER_REFUSALS - {"report", "to_native"}))
def test_every_other_public_name_gives_what_the_fit_in_memory_gives(streamed, whole, name) -> None:
    plt.close("all")
    ours, other = outcome(streamed, name), outcome(whole, name)
    assert type(ours) is type(other)
    if name not in PATHS:
        # The same optimum of the same function: two sums of the same rows differ by rounding.
        assert_allclose(numbers(ours), numbers(other), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", sorted(LAZY))
def test_rows_of_the_source_come_lazily(streamed, whole, name) -> None:
    pytest.importorskip("pyarrow")
    found = outcome(streamed, name).read_all()
    # The same optimum of the same function: two sums of the same rows differ by rounding.
    assert_allclose(found.column(0).to_numpy(), np.asarray(outcome(whole, name)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(NEED_ROWS))
def test_what_needs_rows_is_refused_by_name(streamed, name) -> None:
    with pytest.raises(Lme4Error, match="streamed"):
        outcome(streamed, name)


def test_a_report_says_what_it_leaves_out(streamed, tmp_path) -> None:
    page = streamed.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "10.467" in page
    assert page.count("Left out: the rows of this model were streamed") >= 3


@pytest.mark.parametrize("name", sorted(OTHER_REFUSALS))
def test_what_this_model_does_not_have_is_refused_as_in_memory(streamed, name) -> None:
    with pytest.raises(
        OptionError,
        match=r"residuals of this model|sampling variances|no smooths|several responses",
    ):
        outcome(streamed, name)


@pytest.mark.parametrize("opens", ["response", "link", "linear_scale", "link_scale", "log_scale", "logit_scale"])
def test_margins_are_refused_by_name(streamed, opens) -> None:
    with pytest.raises(Lme4Error, match="streamed"):
        getattr(lme4py.Margins, opens)(streamed)


def test_a_result_outlives_its_source(streamed) -> None:
    again = pickle.loads(pickle.dumps(streamed))
    assert_allclose(again.params, streamed.params, rtol=0)
    assert_allclose(again.coef_table().to_numpy(float), streamed.coef_table().to_numpy(float), rtol=1e-12)


def test_slim(streamed) -> None:
    small = streamed.slim()
    assert small.coef_table().equals(streamed.coef_table())
    assert len(pickle.dumps(small)) < len(pickle.dumps(streamed))


def test_read_into_memory_on_demand(whole) -> None:
    fit = lme4py.lmer(FORMULA, shelves(), control={"rows": "memory"})
    assert fit.rows.where == "memory"
    assert_allclose(fit.fittedvalues.to_numpy(), whole.fittedvalues.to_numpy(), rtol=1e-9)


def test_generalised_models_read_it_into_memory_or_stream_parts() -> None:
    data = lme4py.load_dataset("cbpp")
    source = Shelves(
        *({name: data[name].iloc[part].tolist() for name in data} for part in (slice(0, 30), slice(30, 56)))
    )
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    plain = {name: data[name].tolist() for name in data}
    assert_allclose(lme4py.glmer(formula, source).params, lme4py.glmer(formula, plain).params, rtol=1e-9)
    streamed = lme4py.glmer(formula, source, control={"rows": "stream"})
    assert "1 part by group" in streamed.rows.where
    # Both are certified to 1e-11 of the criterion.
    assert_allclose(streamed.params, lme4py.glmer(formula, plain).params, rtol=1e-5)


class Changing(Shelves):
    """Loses a row of its last block after the first pass."""

    passes = 0

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[RowBlock]:
        self.passes += 1
        for block in super().blocks(columns):
            frame: Frame = block.frame
            yield RowBlock(frame.take(np.arange(frame.n_rows - (self.passes > 1 and frame.n_rows == 80))))


def test_a_source_that_changes_is_refused() -> None:
    with pytest.raises(DataError, match="changed while it was read"):
        lme4py.lmer(FORMULA, Changing(*shelves().parts))
