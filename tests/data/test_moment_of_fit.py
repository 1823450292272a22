"""A fit is a record of one moment: nothing that happens to the data, or to what it gave out, changes its numbers."""

from __future__ import annotations

import copy
import pickle
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import lme4py
from lme4py import Margins, frozen
from lme4py.errors import Lme4Error, Lme4Warning

SLEEP = "Reaction ~ Days + (Days | Subject)"
CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


def arrays_of(thing: Any, path: str, seen: set[int]) -> Iterator[tuple[str, np.ndarray]]:
    """Every array that an object leads to, with the way there."""
    if isinstance(thing, np.ndarray):
        yield path, thing
    elif id(thing) in seen or isinstance(thing, str | int | float | type | types.FunctionType | types.MethodType):
        return
    elif isinstance(thing, pd.Index):
        values = thing.codes if isinstance(thing, pd.MultiIndex) else [thing.values]
        yield from ((f"{path}.values", part) for part in values if isinstance(part, np.ndarray))
    else:
        seen.add(id(thing))
        for name, part in parts_of(thing):
            yield from arrays_of(part, f"{path}{name}", seen)


def parts_of(thing: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, list | tuple | set | frozenset):
        yield from ((f"[{i}]", part) for i, part in enumerate(thing))
    elif isinstance(thing, dict):
        yield from ((f"[{key!r}]", part) for key, part in thing.items())
    else:
        slots = [name for kind in type(thing).__mro__ for name in np.atleast_1d(kind.__dict__.get("__slots__", ()))]
        yield from ((f".{name}", getattr(thing, name)) for name in slots if hasattr(thing, name))
        yield from ((f".{name}", part) for name, part in getattr(thing, "__dict__", {}).items())


def writable(thing: Any) -> list[str]:
    return [path for path, array in arrays_of(thing, "", set()) if array.flags.writeable]


def sleep(**more: Any) -> pd.DataFrame:
    return lme4py.load_dataset("sleepstudy").assign(w=np.linspace(0.5, 2.0, 180), z=np.linspace(-9.0, 9.0, 180), **more)


@cache
def cbpp() -> pd.DataFrame:
    return lme4py.load_dataset("cbpp")


FITS: dict[str, Callable[[], Any]] = {
    "lmer": lambda: lme4py.lmer(SLEEP, sleep(), weights=np.linspace(0.5, 2.0, 180), offset="z / 2"),
    "rows left out": lambda: lme4py.lmer(SLEEP, sleep().replace({"Days": {9.0: np.nan}}), na_action="exclude"),
    "crossed": lambda: lme4py.lmer(
        "diameter ~ 1 + (1 | plate) + (1 | sample)", lme4py.load_dataset("Penicillin"), reml=False
    ),
    "labels of two levels": lambda: lme4py.lmer(SLEEP, sleep().set_index(["Subject", "Days"], drop=False)),
    "glmer": lambda: lme4py.glmer(CBPP, cbpp()),
    "quadrature": lambda: lme4py.glmer(CBPP, cbpp(), nAGQ=5, contrasts={"period": "contr.sum"}),
    "glmer_nb": lambda: lme4py.glmer_nb("incidence ~ period + (1 | herd)", cbpp(), offset=np.log(cbpp()["size"])),
    "clmm": lambda: lme4py.clmm("rating ~ temp + contact + (1 | judge)", lme4py.load_dataset("wine")),
    "mixed": lambda: lme4py.mixed(sleep(), "Reaction", ["Days"], "Subject", ["Days"], vce="robust"),
    "melogit": lambda: lme4py.melogit(cbpp(), "incidence", ["period"], "herd", trials="size"),
}


def ask_everything(result: Any) -> None:
    """Computes what is kept with a fit."""
    asked: list[Callable[[], Any]] = [
        result.summary,
        result.tidy,
        result.augment,
        result.check,
        lambda: result.Zt,
        lambda: result.ranef(conditional_se=True),
        lambda: result.predict(interval="confidence"),
        lambda: result.coef_table(ddf="kenward-roger"),
        lambda: result.cov_params("CR1"),
        lambda: Margins.linear_scale(result).dydx(),
    ]
    for ask in asked:
        try:
            ask()
        except Lme4Error:
            continue


@pytest.mark.parametrize("name", FITS)
def test_every_array_is_read_only(name: str) -> None:
    result = FITS[name]()
    assert sum(1 for _ in arrays_of(result, "", set())) > 30
    assert writable(result) == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        ask_everything(result)
    assert writable(result) == []
    assert writable(pickle.loads(pickle.dumps(result))) == []
    assert writable(copy.deepcopy(result)) == []
    slim = result.slim()
    assert writable(slim) == []
    assert writable(pickle.loads(pickle.dumps(slim))) == []


def test_a_design_is_read_only() -> None:
    design = lme4py.lformula("Reaction ~ poly(Days, 2) + (Days | Subject)", sleep(), weights="w")
    assert design.Zt.data.size > 0
    assert writable(design) == []
    assert writable(pickle.loads(pickle.dumps(design))) == []
    fit = lme4py.lmm_fit(design)
    for array in (fit.beta, fit.vcov, fit.theta, fit.modes[0], fit.fitted, fit.design.X, fit.design.weights):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


# What a fit gives out -------------------------------------------------------------------------------------------

_NOT_ASKED = {"update", "refit", "plot", "plot_data", "profile", "bootstrap", "all_fit", "with_call", "slim", "to_json"}


def given_out(result: Any) -> dict[str, Any]:
    """Every Series, DataFrame and array that properties and methods without arguments give."""
    names = [name for name in dir(type(result)) if not name.startswith("_") and name not in _NOT_ASKED]
    found = {}
    for name in names:
        try:
            value = getattr(result, name)
            found[name] = value() if callable(value) else value
        except (Lme4Error, TypeError):
            continue
    return {name: value for name, value in found.items() if isinstance(value, pd.Series | pd.DataFrame | np.ndarray)}


@pytest.mark.parametrize("name", ["lmer", "glmer", "clmm", "mixed"])
def test_what_is_given_out_is_a_copy(name: str) -> None:
    result = FITS[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        first, again = given_out(result), given_out(result)
    assert len(first) > 15
    inside = [array for _, array in arrays_of(result, "", set()) if array.size]
    for what, value in first.items():
        columns = [value[key] for key in value] if isinstance(value, pd.DataFrame) else [value]
        for column in columns:
            values = getattr(column, "values", column)
            if isinstance(values, np.ndarray):
                assert not any(np.shares_memory(values, array) for array in inside), what
        if isinstance(value, np.ndarray):
            value += 1.0
        elif isinstance(value, pd.DataFrame) or value.dtype.kind == "f":
            value.iloc[:] = value.iloc[::-1].to_numpy()
            value.index.name = "changed"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Lme4Warning)
        after = given_out(result)
    for what, value in again.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(after[what], value)
        elif what not in ("simulate", "quantile_residuals"):
            (pd.testing.assert_frame_equal if isinstance(value, pd.DataFrame) else pd.testing.assert_series_equal)(
                after[what], value
            )


# Edits of what the caller has -----------------------------------------------------------------------------------


def pandas_data() -> tuple[Any, Callable[[], None]]:
    data = sleep()

    def edit() -> None:
        data.loc[:, "Reaction"] = 7.0
        data.loc[data.index[:90], "Days"] = -50.0
        data["w"] = 1e6
        data["Subject"] = data["Subject"].cat.rename_categories(lambda label: f"new {label}")
        data.index = data.index[::-1]
        del data["z"]

    return data, edit


def dict_data() -> tuple[Any, Callable[[], None]]:
    frame = sleep()
    data = {name: frame[name].to_numpy(dtype=np.float64, copy=True) for name in ("Reaction", "Days", "w", "z")}
    data["Subject"] = frame["Subject"].cat.codes.to_numpy(dtype=np.int32, copy=True)

    def edit() -> None:
        for values in data.values():
            values[:100] = 5

    return data, edit


def structured_data() -> tuple[Any, Callable[[], None]]:
    columns, _ = dict_data()
    kinds = [(name, values.dtype) for name, values in columns.items()]
    data = np.empty(180, dtype=kinds)
    for name, values in columns.items():
        data[name] = values

    def edit() -> None:
        data["Reaction"] = 5.0
        data["Days"][:100] = 5.0
        data["Subject"][:100] = 5

    return data, edit


def arrow_data() -> tuple[Any, Callable[[], None]]:
    # Arrow takes the memory of NumPy's floats as it is.
    columns, edit = dict_data()
    return pa.table(columns), edit


def polars_data() -> tuple[Any, Callable[[], None]]:
    data = pl.from_pandas(sleep().assign(Subject=lambda d: d["Subject"].astype(str)))

    def edit() -> None:
        data[0, "Reaction"] = 1e9
        data.replace_column(0, pl.Series("Reaction", np.zeros(180)))

    return data, edit


def linear(data: Any, **more: Any) -> Any:
    return lme4py.lmer(SLEEP, data, **more)


def generalised(data: Any, **more: Any) -> Any:
    return lme4py.glmer("Reaction ~ Days + (1 | Subject)", data, "gamma", **more)


def numbers(result: Any) -> dict[str, Any]:
    """What is computed from the rows of a fit, after it."""
    margins = Margins.linear_scale(result)
    return {
        "params": result.params,
        "residuals": result.residuals("pearson"),
        "augment": result.augment().select_dtypes("number"),
        "influence": result.influence().to_frame(),
        "simulate": result.simulate(2, seed=1),
        "refit": result.refit(result.simulate(1, seed=2).iloc[:, 0]).params,
        "bootstrap": result.bootstrap(3, seed=1, type="cases").replicates,
        "intervals": result.predict(interval="confidence"),
        "robust": result.cov_params("CR1"),
        "margins": margins.dydx("Days").to_frame().select_dtypes("number"),
        "over": margins.predict(over="Days").estimate,
        "aic": result.aic,
        "hat": result.hatvalues(),
        "quantile": result.quantile_residuals(20, seed=1).residuals,
    }


def assert_same(now: dict[str, Any], then: dict[str, Any]) -> None:
    for what, value in then.items():
        np.testing.assert_array_equal(np.asarray(now[what]), np.asarray(value), err_msg=what)
        if isinstance(value, pd.Series | pd.DataFrame):
            assert now[what].index.equals(value.index), what


@pytest.mark.parametrize("make", [pandas_data, dict_data, structured_data, arrow_data, polars_data])
@pytest.mark.parametrize("model", [linear, generalised])
def test_edits_of_the_data_change_nothing(make: Any, model: Any) -> None:
    with warnings.catch_warnings():
        # Three bootstrap samples and refits of simulated responses may be singular.
        warnings.simplefilter("ignore", Lme4Warning)
        expected = numbers(model(make()[0]))
        data, edit = make()
        result = model(data)
        edit()
        assert_same(numbers(result), expected)


def test_edits_of_arguments_change_nothing() -> None:
    def arguments() -> dict[str, Any]:
        frame = sleep()
        return {
            "weights": frame["w"].to_numpy(copy=True),
            "offset": frame["z"].to_numpy(copy=True),
            "contrasts": {"phase": np.array([[0.0], [1.0]])},
        }

    def fitted(given: dict[str, Any]) -> Any:
        data = sleep(phase=np.tile(["a", "b"], 90))
        return lme4py.lmer("Reaction ~ Days + phase + (1 | Subject)", data, **given)

    expected, given = numbers(fitted(arguments())), arguments()
    result = fitted(given)
    given["weights"][:90] = 100.0
    given["offset"][:] = 0.0
    given["contrasts"]["phase"][0, 0] = -1.0
    assert_same(numbers(result), expected)
    # update() fits again with the arguments of the call, which are those of the moment of the call too.
    np.testing.assert_array_equal(result.update(reml=True).params, expected["params"])


def test_the_arrays_of_the_caller_stay_writable() -> None:
    data, _ = dict_data()
    weights = data["w"].copy()
    result = lme4py.lmer(SLEEP, data, weights=weights, offset=data["z"])
    ask_everything(result)
    result.predict(data, offset=data["z"])
    result.cov_params("CR1", cluster=data["Subject"])
    Margins.linear_scale(result, weights=weights).dydx("Days")
    result.refit(data["Reaction"])
    for array in (*data.values(), weights):
        assert array.flags.writeable


def test_update_says_that_the_data_were_changed() -> None:
    data, _ = dict_data()
    result = linear(data)
    # Nothing was changed yet: no warning.
    assert result.update(reml=False).n_obs == 180
    data["Days"][0] += 1.0
    with pytest.warns(Lme4Warning, match="the data were changed after the fit"):
        result.update(reml=False)
    assert result.update(reml=False, data=sleep()).n_obs == 180


def test_columns_beside_the_model_are_those_of_the_fit() -> None:
    data = sleep(school=np.repeat(np.arange(9), 20))
    result = lme4py.lmer(SLEEP, data)
    expected = result.cov_params("CR1", cluster=data["school"])
    data["school"] = np.arange(180)
    data["more"] = 1.0
    pd.testing.assert_frame_equal(result.cov_params("CR1", cluster="school"), expected)
    pd.testing.assert_frame_equal(result.cov_params("CR1", cluster="floor(school / 1)"), expected)


@dataclass(frozen=True)
class _Words:
    name: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class _Held:
    words: _Words
    table: np.ndarray | None
    sizes: tuple[np.ndarray, ...]


def test_records_are_looked_into_where_they_may_hold_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "_OWN", (*frozen._OWN, __name__))
    held = _Held(_Words("x", ("a", "b")), np.zeros(2), (np.zeros(3),))
    frozen.freeze(held)
    assert not held.table.flags.writeable
    assert not held.sizes[0].flags.writeable
    assert _Words in frozen._DONE
    # What was put beside the fields is found too.
    object.__setattr__(held, "more", [np.zeros(1)])
    frozen.freeze(held)
    assert not held.more[0].flags.writeable  # type: ignore[attr-defined]


def test_a_name_of_counted_rows_that_is_changed_later_reaches_no_fit() -> None:
    data = lme4py.load_dataset("sleepstudy")
    result = lme4py.lmer(SLEEP, data)
    data.index.name = "changed"
    assert result.fit.design.index.name is None
