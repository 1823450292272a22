"""Every door for a value per row: matched by its labels, by name, by expression, and never dropped in silence."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import lme4py
from lme4py import Margins
from lme4py.errors import DataError, FormulaError, Lme4Error, Lme4Warning, OptionError

N = 120
ORDER = np.random.default_rng(3).permutation(N)


@cache
def data() -> pd.DataFrame:
    """Rows with labels of text; w, e, m and school stand beside the models below."""
    rng = np.random.default_rng(11)
    g = np.repeat(np.arange(12), 10)
    x = rng.normal(size=N)
    eta = 0.4 * x + rng.normal(size=12)[g]
    m = rng.integers(2, 9, N)
    return pd.DataFrame(
        {
            "y": eta + rng.normal(size=N),
            "count": rng.poisson(np.exp(0.5 + 0.5 * eta)),
            "s": rng.binomial(m, 1.0 / (1.0 + np.exp(-eta))),
            "rating": pd.Categorical.from_codes(
                np.digitize(eta + rng.logistic(size=N), [-1.0, 1.0]), ["low", "mid", "high"], ordered=True
            ),
            "x": x,
            "f": np.tile(["a", "b"], N // 2),
            "g": np.array([f"g{i:02}" for i in g]),
            "w": rng.uniform(0.5, 3.0, N),
            "e": rng.uniform(0.5, 2.0, N),
            "m": m,
            "school": g // 3,
        },
        index=[f"row {i}" for i in rng.permutation(N)],
    )


def shuffled(name: str) -> pd.Series:
    """A column of the data in another order, with its labels."""
    return data()[name].iloc[ORDER]


def forms(name: str, expression: str) -> dict[str, Any]:
    """The same values in every way that they can be given."""
    column = data()[name]
    more = pd.concat([shuffled(name), pd.Series([np.inf, -1.0], index=["other 1", "other 2"])])
    return {
        "name": name,
        "expression": expression,
        "array": column.to_numpy(),
        "list": column.tolist(),
        "polars": pl.Series(column.to_numpy()),
        "arrow": pa.array(column.to_numpy()),
        "Series": column,
        "shuffled Series": shuffled(name),
        "shuffled frame": shuffled(name).to_frame(),
        "Series of more rows": more,
    }


FITTERS: dict[str, tuple[Callable[..., Any], str, str, str]] = {
    "lmer weights": (lambda **k: lme4py.lmer("y ~ x + (1 | g)", data(), **k), "weights", "w", "1 / (1 / w)"),
    "lmer offset": (lambda **k: lme4py.lmer("y ~ x + (1 | g)", data(), **k), "offset", "e", "exp(log(e))"),
    "glmer weights": (lambda **k: lme4py.glmer("I(s / m) ~ x + (1 | g)", data(), **k), "weights", "m", "m + 0 * x"),
    "glmer offset": (
        lambda **k: lme4py.glmer("count ~ x + (1 | g)", data(), "poisson", **k),
        "offset",
        "e",
        "2 * e / 2",
    ),
    "glmer_nb offset": (lambda **k: lme4py.glmer_nb("count ~ x + (1 | g)", data(), **k), "offset", "e", "2 * e / 2"),
    "clmm weights": (lambda **k: lme4py.clmm("rating ~ x + (1 | g)", data(), **k), "weights", "w", "w + x - x"),
    "clmm offset": (lambda **k: lme4py.clmm("rating ~ x + (1 | g)", data(), **k), "offset", "e", "e * 1"),
    "mixed weights": (lambda **k: lme4py.mixed(data(), "y", ["x"], "g", **k), "weights", "w", "w * 1"),
    "mixed offset": (lambda **k: lme4py.mixed(data(), "y", ["x"], "g", **k), "offset", "e", "e * 1"),
    "melogit trials": (lambda **k: lme4py.melogit(data(), "s", ["x"], "g", **k), "trials", "m", "m * 1"),
    "mepoisson offset": (lambda **k: lme4py.mepoisson(data(), "count", ["x"], "g", **k), "offset", "e", "e * 1"),
    "meologit weights": (lambda **k: lme4py.meologit(data(), "rating", ["x"], "g", **k), "weights", "w", "w * 1"),
    "lformula weights": (
        lambda **k: lme4py.lmm_fit(lme4py.lformula("y ~ x + (1 | g)", data(), **k)),
        "weights",
        "w",
        "w * 1",
    ),
}


@pytest.mark.parametrize("door", FITTERS)
def test_every_way_to_give_values_to_a_fit(door: str) -> None:
    fit, argument, name, expression = FITTERS[door]
    with warnings.catch_warnings():
        # The Laplace approximation of a small model may be poor; that is not the question here.
        warnings.simplefilter("ignore", Lme4Warning)
        found = {form: fit(**{argument: values}).criterion for form, values in forms(name, expression).items()}
        # 840 is a multiple of all numbers of trials.
        others = {"melogit trials": {"trials": 8}, "glmer weights": {"weights": np.full(N, 840.0)}}
        plain = fit(**others.get(door, {})).criterion
    # The expressions round differently from the column.
    assert found.pop("expression") == pytest.approx(found["name"], rel=1e-10)
    assert set(found.values()) == {found["name"]}
    assert abs(plain - found["name"]) > 1e-3


@pytest.mark.parametrize("door", FITTERS)
def test_values_that_do_not_fit_the_rows(door: str) -> None:
    fit, argument, name, _ = FITTERS[door]
    column = data()[name]
    for values, fault in (
        (column.reset_index(drop=True), f"^`{argument}` has no value for 120 of the 120 rows of the data"),
        (column.iloc[:-1], "has no value for 1 of the 120 rows"),
        (column.rename(index={"row 1": "row 2"}), "are not unique"),
        (column.to_numpy()[:-1], "has 119 values but the data have 120 rows"),
    ):
        with pytest.raises(DataError, match=fault):
            fit(**{argument: values})
    with pytest.raises((DataError, FormulaError), match=r"not found|is no column"):
        fit(**{argument: f"{name}x"})
    with pytest.raises(Lme4Error, match=f"`?{argument}`? (is|holds) 'x [|] g'"):
        fit(**{argument: "x | g"})


@pytest.mark.parametrize("make", [pl.from_pandas, pa.Table.from_pandas, lambda d: {n: d[n].to_numpy() for n in d}])
def test_labels_beside_data_without_labels(make: Any) -> None:
    other = make(data().reset_index(drop=True))
    expected = lme4py.lmer("y ~ x + (1 | g)", data(), weights="w")
    fit = lme4py.lmer("y ~ x + (1 | g)", other, weights=data()["w"].reset_index(drop=True))
    assert fit.criterion == expected.criterion
    for values in (shuffled("w"), data()["w"].reset_index(drop=True).iloc[ORDER]):
        with pytest.raises(DataError, match="but the data have none"):
            lme4py.lmer("y ~ x + (1 | g)", other, weights=values)
        with pytest.raises(DataError, match="but the data have none"):
            fit.cov_params("CR1", cluster=values)
        with pytest.raises(DataError, match="but the data have none"):
            fit.refit(values)


def test_rows_left_out() -> None:
    gaps = data().assign(x=data()["x"].where(np.arange(N) % 7 > 0))
    expected = lme4py.lmer("y ~ x + (1 | g)", gaps.dropna(), weights="w")
    for values in ("w", shuffled("w"), shuffled("w").where(gaps["x"].notna()), "ifelse(x > -99, w, w)"):
        assert lme4py.lmer("y ~ x + (1 | g)", gaps, weights=values).criterion == expected.criterion
    # A missing weight leaves a row out too.
    fewer = lme4py.lmer("y ~ x + (1 | g)", gaps, weights=shuffled("w").mask(shuffled("w") > 2.9))
    assert fewer.n_obs == (gaps.dropna()["w"] <= 2.9).sum()


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("1 / (w - w)", "is not finite in 120 of 120 rows"),
        ("log(-w)", "is not finite in 120 of 120 rows"),
        ("-w", "the weights '-w' hold 120 negative value"),
        ("f", "the weights 'f' are not numeric"),
        ("poly(x, 2)", r"the weights 'poly\(x, 2\)' are not numeric"),
        ("w +", "`weights` is 'w [+]', which is neither a column nor an expression"),
        ("1 / v", "column 'v' not found in weights='1 / v'"),
        ("y ~ x", "`weights` is 'y ~ x'"),
        ("", "`weights` is an empty text"),
    ],
)
def test_expressions_that_are_no_weights(expression: str, fault: str) -> None:
    with pytest.raises(Lme4Error, match=fault):
        lme4py.lmer("y ~ x + (1 | g)", data(), weights=expression)


def test_a_column_may_be_called_like_an_expression() -> None:
    named = data().rename(columns={"w": "1/vi"})
    expected = lme4py.lmer("y ~ x + (1 | g)", data(), weights="w").criterion
    assert lme4py.lmer("y ~ x + (1 | g)", named, weights="1/vi").criterion == expected
    precise = data().assign(vi=1.0 / data()["w"])
    # 1 / (1 / w) is w up to rounding.
    assert lme4py.lmer("y ~ x + (1 | g)", precise, weights="1/vi").criterion == pytest.approx(expected, rel=1e-12)


def test_expressions_remember_what_they_learnt() -> None:
    fit = lme4py.lmer("y ~ x + (1 | g)", data(), offset="scale(e)")
    one = fit.predict(data().iloc[[5]], include_random=False)
    whole = fit.predict(data(), include_random=False)
    np.testing.assert_array_equal(one, whole.iloc[[5]])


# Predictions on new data --------------------------------------------------------------------------------------


def fits_with_offset(offset: Any) -> list[Any]:
    return [
        lme4py.lmer("y ~ x + (1 | g)", data(), offset=offset),
        lme4py.glmer("count ~ x + (1 | g)", data(), "poisson", offset=offset),
        lme4py.clmm("rating ~ x + (1 | g)", data(), offset=offset),
        lme4py.mepoisson(data(), "count", ["x"], "g", offset=offset),
    ]


NAMES = ["lmer", "glmer", "clmm", "mepoisson"]


def new_rows() -> pd.DataFrame:
    return data().iloc[[3, 50, 99, 7]].assign(x=[0.0, 1.0, -1.0, 2.0])


@pytest.mark.parametrize("kind", range(4), ids=NAMES)
def test_an_offset_reaches_new_rows(kind: int) -> None:
    by_name, by_expression, by_array = (fits_with_offset(o)[kind] for o in ("e", "e + 0 * x", data()["e"].to_numpy()))
    new = new_rows()
    for options in ({}, {"include_random": False}, {"type": "linear"}, {"interval": "confidence"}):
        expected = np.asarray(by_name.predict(new, **options), dtype=np.float64)
        # Optima of the same criterion from offsets that may differ by rounding.
        np.testing.assert_allclose(by_expression.predict(new, **options), expected, rtol=1e-6)
        for offset in ("e", "e * 1", new["e"].to_numpy(), new["e"].iloc[[2, 0, 3, 1]], new["e"].tolist()):
            found = by_array.predict(new, offset=offset, **options)
            np.testing.assert_allclose(found, expected, rtol=1e-6)
        moved = by_name.predict(new.assign(e=0.0), **options)
        np.testing.assert_allclose(by_name.predict(new, offset=0.0, **options), moved, rtol=1e-12)
        assert np.abs(np.asarray(moved, dtype=np.float64) - expected).max() > 0.01


@pytest.mark.parametrize("kind", range(4), ids=NAMES)
def test_an_offset_given_as_an_array_is_not_dropped(kind: int) -> None:
    fit = fits_with_offset(data()["e"])[kind]
    whole = fit.predict()
    for one in (fit, pickle.loads(pickle.dumps(fit)), fit.slim()):
        for ask in (
            lambda r: r.predict(new_rows()),
            lambda r: r.predict(new_rows(), include_random=False),
            lambda r: r.predict(new_rows(), interval="confidence"),
            lambda r: r.augment(newdata=new_rows()),
        ):
            with pytest.raises(OptionError, match=r"the model has an offset that was given as an array.*offset="):
                ask(one)
    np.testing.assert_allclose(fit.slim().predict(data(), offset="e"), whole, rtol=1e-10)
    session = Margins.linear_scale(fit)
    assert len(session.predict(atexog={"x": [0.0, 1.0]})) >= 2
    with pytest.raises(OptionError, match="belongs to the rows of the fit"):
        Margins.linear_scale(fit, at=new_rows())
    with pytest.raises(OptionError, match="`offset` is for new data"):
        fit.predict(offset="e")


def test_offsets_of_new_rows_that_do_not_fit() -> None:
    fit = lme4py.lmer("y ~ x + (1 | g)", data(), offset=data()["e"])
    new = new_rows()
    for offset, fault in (
        (data()["e"].iloc[:3], "`offset` has no value for 4 of the 4 rows of the data"),
        (new["e"].reset_index(drop=True), "`offset` has no value for 4 of the 4 rows"),
        ([1.0, 2.0], "`offset` has 2 values but the data have 4 rows"),
        ([np.inf] * 4, "the offset has 4 infinite value"),
        ("f", "the offset 'f' is not numeric"),
        ("ee", "column 'ee' not found"),
    ):
        with pytest.raises(DataError, match=fault):
            fit.predict(new, offset=offset)
    with pytest.raises(DataError, match="has no value for"):
        fit.predict(new, offset=data()["e"].rename(index={new.index[0]: "gone"}))
    np.testing.assert_array_equal(fit.predict(new, offset=[0.0, np.nan, 0.0, 0.0]).isna(), [False, True, False, False])


def test_weights_of_new_rows() -> None:
    fits = [lme4py.lmer("y ~ x + (1 | g)", data(), weights=w) for w in ("w", "w * 1", data()["w"])]
    new = new_rows()
    expected = fits[0].predict(new, interval="prediction")
    pd.testing.assert_frame_equal(fits[1].predict(new, interval="prediction"), expected)
    with pytest.raises(OptionError, match="prior weights that were given as an array"):
        fits[2].predict(new, interval="prediction")
    for weights in ("w", "w * 1", new["w"], new["w"].iloc[[2, 0, 3, 1]], new["w"].to_numpy()):
        found = fits[2].predict(new, interval="prediction", weights=weights)
        pd.testing.assert_frame_equal(found, expected)
    with pytest.raises(DataError, match="`weights` has no value for 4 of the 4 rows"):
        fits[2].predict(new, interval="prediction", weights=new["w"].reset_index(drop=True))
    with pytest.raises(OptionError, match="`weights` is for new data"):
        fits[2].predict(interval="prediction", weights="w")


def test_slopes_of_an_offset_by_expression() -> None:
    named = lme4py.glmer("count ~ x + (1 | g)", data(), "poisson", offset="log(e)")
    written = lme4py.glmer("count ~ x + offset(log(e)) + (1 | g)", data(), "poisson")
    for ask in (lambda m: m.dydx(["x", "e"]), lambda m: m.predict(atexog={"e": [0.5, 2.0]}), lambda m: m.eyex("e")):
        found, expected = (ask(Margins.linear_scale(fit)) for fit in (named, written))
        # Two fits of one criterion.
        np.testing.assert_allclose(found.estimate, expected.estimate, rtol=1e-8)
        np.testing.assert_allclose(found.se, expected.se, rtol=1e-6)


# Clusters, responses and margins ------------------------------------------------------------------------------


@cache
def linear() -> Any:
    gaps = data().assign(x=data()["x"].where(np.arange(N) % 11 > 0))
    return lme4py.lmer("y ~ x + f + (1 | g)", gaps)


def test_clusters() -> None:
    fit = linear()
    used = fit.fit.design.keep
    labels = data()["school"].map({0: "p", 1: "q", 2: "r", 3: "s"})
    expected = fit.cov_params("CR1", cluster=data()["school"].to_numpy())
    assert not np.allclose(expected, fit.cov_params("CR1"), rtol=1e-3)
    for cluster in (
        data()["school"],
        shuffled("school"),
        shuffled("school").to_frame(),
        data()["school"].to_numpy()[used],
        data()["school"][used].iloc[::-1],
        labels.iloc[ORDER],
        labels.astype("category").iloc[ORDER],
        pl.Series(labels.to_numpy()),
        shuffled("school") + 2**60,
        pd.Timestamp("2020-01-01") + pd.to_timedelta(shuffled("school"), unit="D"),
        "school",
        "2 * school",
        "factor(school)",
    ):
        np.testing.assert_allclose(fit.cov_params("CR1", cluster=cluster), expected, rtol=1e-12)
    for ask in (
        lambda c: fit.coef_table(vcov="CR2", cluster=c),
        lambda c: fit.conf_int(vcov="CR2", cluster=c),
        lambda c: fit.contest(["x"], vcov="CR2", cluster=c),
        lambda c: pd.Series(fit.wald_test("x", vcov="CR2", cluster=c)),
        lambda c: fit.influence(group=c).to_frame().sort_values("cooks_fixed").reset_index(drop=True),
        lambda c: Margins.linear_scale(fit, vcov="CR2", cluster=c).dydx("x").to_frame()[["estimate", "std_error"]],
    ):
        by_position = ask(data()["school"].to_numpy())
        np.testing.assert_allclose(ask(shuffled("school")), by_position, rtol=1e-10)
        np.testing.assert_allclose(ask("school"), by_position, rtol=1e-10)


def test_clusters_that_do_not_fit() -> None:
    fit = linear()
    for cluster, fault in (
        (data()["school"].reset_index(drop=True), "`cluster` has no value for 109 of the 109 rows used"),
        (data()["school"].iloc[:50], "`cluster` has no value for"),
        ([1, 2], "`cluster` has 2 values but the data have 120 rows, and the model was fitted to 109"),
        (data()["school"].where(data()["school"] > 0), "`cluster` is missing in"),
    ):
        with pytest.raises(DataError, match=fault):
            fit.cov_params("CR1", cluster=cluster)
    with pytest.raises(OptionError, match="no grouping factor of the model and no column of its data"):
        fit.cov_params("CR1", cluster="gg")
    # The data are not pickled; the columns of the model are.
    again = pickle.loads(pickle.dumps(fit))
    with pytest.raises(OptionError, match="no column of its data"):
        again.cov_params("CR1", cluster="school")
    np.testing.assert_array_equal(again.cov_params("CR1", cluster="g"), fit.cov_params("CR1"))


@pytest.mark.parametrize("na_action", ["omit", "exclude"])
def test_new_responses(na_action: Any) -> None:
    gaps = data().assign(x=data()["x"].where(np.arange(N) % 11 > 0))
    fit = lme4py.lmer("y ~ x + (1 | g)", gaps, na_action=na_action)
    simulated = fit.simulate(1, seed=1)
    assert len(simulated) == (N if na_action == "exclude" else fit.n_obs)
    assert simulated.index.equals(fit.fittedvalues.index)
    np.testing.assert_array_equal(simulated["sim_1"].isna(), fit.fittedvalues.isna())
    y = simulated["sim_1"].dropna()
    expected = fit.refit(y.to_numpy()).criterion
    back = y.sample(frac=1.0, random_state=1)
    for response in (simulated, simulated["sim_1"], y, y.tolist(), back, back.to_frame(), y.reindex(data().index)):
        assert fit.refit(response).criterion == expected
    for response in (pl.Series(y.to_numpy()), pl.DataFrame({"y": y.to_numpy()}), pa.array(y.to_numpy())):
        assert fit.refit(response).criterion == expected
    with pytest.raises(DataError, match="`y` has no value for"):
        fit.refit(y.reset_index(drop=True))
    with pytest.raises(DataError, match="2 columns"):
        fit.refit(simulated.assign(more=1.0))


def test_new_responses_of_generalised_models() -> None:
    both = data().assign(r=data()["m"] - data()["s"])
    fit = lme4py.glmer("cbind(s, r) ~ x + (1 | g)", both)
    pairs = both[["s", "r"]]
    # A refit starts from the old optimum and ends at it.
    for response in (both["s"], shuffled("s"), shuffled("s").to_frame(), pairs, pairs.iloc[ORDER], pairs.to_numpy()):
        assert fit.refit(response).criterion == pytest.approx(fit.criterion, rel=1e-9)
    with pytest.raises(DataError, match="`y` has no value for 120 of the 120 rows"):
        fit.refit(pairs.reset_index(drop=True))
    ordinal = lme4py.clmm("rating ~ x + (1 | g)", data())
    for response in (
        data()["rating"],
        shuffled("rating"),
        shuffled("rating").to_frame(),
        shuffled("rating").astype(str),
    ):
        assert ordinal.refit(response).criterion == pytest.approx(ordinal.criterion, rel=1e-9)
    simulated = ordinal.simulate(1, seed=1)["sim_1"]
    expected = ordinal.refit(simulated).criterion
    assert ordinal.refit(simulated.iloc[ORDER]).criterion == expected
    binary = lme4py.glmer("f ~ x + (1 | g)", data())
    assert binary.refit(shuffled("f")).criterion == pytest.approx(binary.criterion, rel=1e-9)


@pytest.mark.parametrize("categories", ["labels", "numbers"])
def test_simulated_categories_are_padded(categories: str) -> None:
    rating = data()["rating"] if categories == "labels" else data()["rating"].cat.codes + 1
    gaps = data().assign(rating=rating, x=data()["x"].where(np.arange(N) % 11 > 0))
    fit = lme4py.clmm("rating ~ x + (1 | g)", gaps, na_action="exclude")
    simulated = fit.simulate(2, seed=3)
    assert simulated.index.equals(gaps.index)
    np.testing.assert_array_equal(simulated["sim_2"].isna(), gaps["x"].isna())
    assert set(simulated["sim_2"].dropna()) == set(rating)
    plain = lme4py.clmm("rating ~ x + (1 | g)", gaps).simulate(2, seed=3)
    assert fit.refit(simulated[["sim_2"]]).criterion == fit.refit(plain["sim_2"]).criterion


def test_weights_and_groups_of_margins() -> None:
    fit = linear()
    used = fit.fit.design.keep
    expected = Margins.linear_scale(fit, weights=data()["w"].to_numpy()).predict().estimate
    assert abs(expected[0] - Margins.linear_scale(fit).predict().estimate[0]) > 1e-4
    for weights in (
        "w",
        "w * 1",
        data()["w"],
        shuffled("w"),
        shuffled("w").to_frame(),
        data()["w"][used].iloc[::-1],
        data()["w"].to_numpy()[used],
        pl.Series(data()["w"].to_numpy()),
    ):
        found = Margins.linear_scale(fit, weights=weights).predict().estimate
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    given = data()[used].head(40)
    by_name = Margins.linear_scale(fit, at=given, weights="w").predict().estimate
    for weights in (given["w"].iloc[::-1], shuffled("w"), "w + 0 * x"):
        np.testing.assert_allclose(Margins.linear_scale(fit, at=given, weights=weights).predict().estimate, by_name)
    for weights in (data()["w"].reset_index(drop=True), data()["w"].iloc[:9]):
        with pytest.raises(DataError, match="`weights` has no value for"):
            Margins.linear_scale(fit, weights=weights)
    groups = Margins.linear_scale(fit).predict(over=data()["school"].to_numpy()).estimate
    np.testing.assert_array_equal(Margins.linear_scale(fit).predict(over=shuffled("school")).estimate, groups)
    with pytest.raises(DataError, match="`over` has no value for"):
        Margins.linear_scale(fit).predict(over=data()["school"].reset_index(drop=True))


def test_augment_matches_rows_of_its_data() -> None:
    fit = linear()
    expected = fit.augment(data())
    pd.testing.assert_frame_equal(fit.augment(data().iloc[ORDER]), expected)
    with pytest.raises(DataError, match="`data` has no value for"):
        fit.augment(data().reset_index(drop=True))


# Named vectors ------------------------------------------------------------------------------------------------


def test_contrasts_by_name() -> None:
    session = Margins.linear_scale(linear())
    scenarios = {"low": {"x": 0.0}, "high": {"x": 2.0}}
    expected = session.contrasts(scenarios=scenarios, contrasts=[-1.0, 1.0]).estimate
    for contrasts in (
        pd.Series([1.0, -1.0], index=["high", "low"]),
        [pd.Series([1.0, -1.0], index=["high", "low"])],
        {"difference": pd.Series([1.0, -1.0], index=["high", "low"])},
        pd.DataFrame({"high": [1.0], "low": [-1.0]}),
        pd.Series([-1.0, 1.0]),
    ):
        np.testing.assert_allclose(session.contrasts(scenarios=scenarios, contrasts=contrasts).estimate, expected)
    for contrasts in (pd.Series([1.0, -1.0], index=["hi", "low"]), pd.Series([1.0, -1.0], index=[1, 0])):
        with pytest.raises(OptionError, match="no scenario"):
            session.contrasts(scenarios=scenarios, contrasts=contrasts)
    with pytest.raises(OptionError, match="named scenarios"):
        session.contrasts(scenarios=list(scenarios.values()), contrasts=pd.Series([1.0, -1.0], index=[1, 0]))


def test_restrictions_by_name() -> None:
    fit = linear()
    expected = fit.contest([0.0, 1.0, -1.0])
    for L in (
        pd.Series([-1.0, 1.0, 0.0], index=["f[T.b]", "x", "Intercept"]),
        pd.Series([-1.0, 1.0], index=["f[T.b]", "x"]),
        pd.DataFrame({"f[T.b]": [-1.0], "x": [1.0]}),
        pd.Series([0.0, 1.0, -1.0]),
    ):
        pd.testing.assert_frame_equal(fit.contest(L), expected)
        assert fit.wald_test(L) == fit.wald_test([0.0, 1.0, -1.0])
    with pytest.raises(DataError, match="`restrictions` has label 'z'"):
        fit.wald_test(pd.Series([1.0], index=["z"]))
    values = pd.Series([0.3, 0.1], index=["f[T.b]", "x"])
    assert fit.wald_test(["x", "f[T.b]"], value=values) == fit.wald_test(["x", "f[T.b]"], value=[0.1, 0.3])
    with pytest.raises(DataError, match="`value` has label 'z'"):
        fit.wald_test(["x"], value=pd.Series([1.0], index=["z"]))


def test_null_values_and_covariances_of_margins_by_name() -> None:
    fit = linear()
    slopes = Margins.linear_scale(fit).dydx(["x", "f"])
    values = pd.Series([0.1, 0.2], index=list(slopes.labels))
    pd.testing.assert_frame_equal(slopes.test(values.iloc[::-1]), slopes.test([0.1, 0.2]))
    with pytest.raises(DataError, match="`value` has label"):
        slopes.test(values.rename(index={slopes.labels[0]: "other"}))
    covariance = fit.cov_params("CR2")
    backwards = covariance.iloc[::-1, ::-1]
    expected = Margins.linear_scale(fit, vcov=covariance.to_numpy()).dydx("x").se
    np.testing.assert_array_equal(Margins.linear_scale(fit, vcov=backwards).dydx("x").se, expected)
    with pytest.raises(OptionError, match="`vcov` has the columns"):
        Margins.linear_scale(fit, vcov=backwards.rename(columns={"x": "z"}))


def test_contrast_matrices_by_name() -> None:
    levels = data().assign(f=np.tile(["a", "b", "c"], N // 3))
    matrix = pd.DataFrame([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], index=["a", "b", "c"])
    formula = "y ~ f + (1 | g)"
    expected = lme4py.lmer(formula, levels, contrasts={"f": matrix.to_numpy()}).params
    assert lme4py.lmer(formula, levels, contrasts={"f": matrix.iloc[[2, 0, 1]]}).params.equals(expected)
    with pytest.raises(OptionError, match="has the row labels 'a', 'b', 'd'"):
        lme4py.lmer(formula, levels, contrasts={"f": matrix.rename(index={"c": "d"})})
