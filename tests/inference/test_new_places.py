"""Predictions of a process at times and places between those of the fit: its conditional expectation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from reference_data import load_reference

import lme4py
from lme4py.errors import DataError

IRREGULAR = load_reference("irreg")


def test_a_process_at_new_times() -> None:
    fit = lme4py.lmer("y ~ x + time + ou(time | id)", IRREGULAR)
    group = IRREGULAR["id"].iloc[0]
    times = np.sort(IRREGULAR["time"].unique())
    new = pd.DataFrame({"x": 0.3, "time": [0.77, 1.5, 2.21, times.max() + 3.0], "id": group})
    reach = fit.variance_components["range(ou)"]
    modes = fit.ranef().loc[group].to_numpy()
    gaps = np.abs(np.subtract.outer(times, times))
    C, c = np.exp(-gaps / reach), np.exp(-np.abs(np.subtract.outer(new["time"].to_numpy(), times)) / reach)
    expected = fit.predict(new, include_random=False) + c @ np.linalg.solve(C, modes)
    # Inverses of well-conditioned matrices; the range is printed with all digits.
    np.testing.assert_allclose(fit.predict(new), expected, atol=1e-8)


def test_what_has_no_expectation_between() -> None:
    sleep = lme4py.load_dataset("sleepstudy")
    fit = lme4py.lmer("Reaction ~ Days + ar1(0 + Days | Subject)", sleep[sleep["Days"] != 4])
    with pytest.raises(DataError, match=r"were not in the rows .*4\.5"):
        fit.predict(sleep.head(1).assign(Days=4.5))
    process = lme4py.lmer("y ~ x + time + ou(time | id)", IRREGULAR)
    new = IRREGULAR.head(2).assign(time=0.77)
    with pytest.raises(DataError, match="were not in the rows"):
        process.predict(new, interval="confidence")
    assert process.predict(new).notna().all()


def test_steps_of_an_autoregression_that_were_missed() -> None:
    sleep = lme4py.load_dataset("sleepstudy")
    fit = lme4py.lmer("Reaction ~ Days + ar1(0 + Days | Subject)", sleep[sleep["Days"] != 4])
    row = sleep[(sleep["Days"] == 4) & (sleep["Subject"] == "308")]
    rho = fit.variance_components["corr(ar1)"]
    modes = fit.ranef().loc["308"].to_numpy()
    # Of a first-order autoregression the neighbours say all: rho (b3 + b5) / (1 + rho^2).
    expected = fit.predict(row, include_random=False).iloc[0] + rho * (modes[3] + modes[4]) / (1.0 + rho**2)
    assert fit.predict(row).iloc[0] == pytest.approx(expected, abs=1e-8)
