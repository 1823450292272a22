"""A source of rows that is defined here alone: it fits, refuses what needs rows by name, and predicts."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.testing import assert_allclose

import lme4py
from lme4py.data.frame import Frame, read_frame
from lme4py.data.sources import RowBlock, RowSource, Schema
from lme4py.errors import DataError, Lme4Error, OptionError

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
def streamed() -> lme4py.results.MixedResult:
    return lme4py.lmer(FORMULA, shelves())


@pytest.fixture(scope="module")
def whole() -> lme4py.results.MixedResult:
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


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: fit.fittedvalues,
        lambda fit: fit.residuals(),
        lambda fit: fit.hatvalues(),
        lambda fit: fit.predict(),
        lambda fit: fit.augment(),
        lambda fit: fit.simulate(2),
        lambda fit: fit.refit(np.zeros(180)),
        lambda fit: fit.bootstrap(3),
        lambda fit: fit.influence(),
        lambda fit: fit.quantile_residuals(),
        lambda fit: fit.ranova(),
        lambda fit: fit.r_squared(),
        lambda fit: fit.icc(),
        lambda fit: fit.check(),
        lambda fit: fit.Zt,
        lambda fit: fit.model_matrix,
    ],
)
def test_what_needs_rows_is_refused_by_name(streamed, ask) -> None:
    with pytest.raises(Lme4Error, match="streamed"):
        ask(streamed)


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


def test_generalised_models_read_it_into_memory_or_refuse() -> None:
    data = lme4py.load_dataset("cbpp")
    source = Shelves(
        *({name: data[name].iloc[part].tolist() for name in data} for part in (slice(0, 30), slice(30, 56)))
    )
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    plain = {name: data[name].tolist() for name in data}
    assert_allclose(lme4py.glmer(formula, source).params, lme4py.glmer(formula, plain).params, rtol=1e-9)
    with pytest.raises(OptionError, match="not streamed"):
        lme4py.glmer(formula, source, control={"rows": "stream"})


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
