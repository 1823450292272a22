"""What goes wrong around a fit leaves nothing behind: errors, interrupts, dead processes, missing directories.

The limit of BLAS threads itself is in test_threads.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_info

import lme4py
from lme4py.engine import threads
from lme4py.engine.generalised.problem import ModeFinder
from lme4py.engine.linear.criterion import Criterion
from lme4py.errors import Lme4Warning
from lme4py.inference.bootstrap import workers as bootstrap_workers
from lme4py.inference.bootstrap.task import Part

FITS = {
    # Unbalanced, so that the optimiser has something to do.
    "lmm": lambda: lme4py.lmer("Reaction ~ Days + (Days | Subject)", lme4py.load_dataset("sleepstudy").iloc[:-7]),
    "glmm": lambda: lme4py.glmer(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", lme4py.load_dataset("cbpp")
    ),
    "quadrature": lambda: lme4py.glmer(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", lme4py.load_dataset("cbpp"), nAGQ=7
    ),
    "clmm": lambda: lme4py.clmm("rating ~ temp + contact + (1 | judge)", lme4py.load_dataset("wine")),
}


def pools() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info()]


def process_state() -> tuple[object, ...]:
    """Everything of a process that a library could change behind its user's back."""
    state = np.random.get_state()
    return (
        state[1].tolist(),
        state[2:],
        list(warnings.filters),
        np.geterr(),
        np.get_printoptions()["precision"],
        pools(),
        pd.get_option("display.max_columns"),
        os.getcwd(),
        signal.getsignal(signal.SIGINT),
        dict(os.environ),
    )


# -- nothing global changes ------------------------------------------------------------------------


@pytest.mark.parametrize("name", FITS)
def test_a_fit_and_its_inference_change_no_global_state(name):
    before = process_state()
    result = FITS[name]()
    result.summary()
    result.predict()
    result.simulate(3, seed=1)
    result.bootstrap(3, seed=1)
    result.conf_int()
    assert process_state() == before


def test_simulation_without_a_seed_leaves_the_global_generator_alone(sleep):
    before = process_state()
    one, other = sleep.simulate(1), sleep.simulate(1)
    assert not one.equals(other)
    assert process_state() == before


def test_plots_change_no_settings(sleep, agg):
    before, state = dict(agg.rcParams), process_state()
    for kind in ("caterpillar", "residuals", "qq"):
        sleep.plot(kind)
    assert dict(agg.rcParams) == before
    assert process_state() == state


# -- errors and interrupts in the middle -----------------------------------------------------------


def fails_later(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, error: BaseException) -> None:
    """Let the second call of a method raise."""
    real, calls = getattr(owner, name), []

    def method(*args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(owner, name, method)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ZeroDivisionError])
@pytest.mark.parametrize(
    ("name", "owner", "method"),
    [
        ("lmm", Criterion, "evaluate"),
        ("glmm", ModeFinder, "find"),
        ("quadrature", ModeFinder, "find"),
        ("clmm", ModeFinder, "find"),
    ],
)
def test_an_interrupted_fit_leaves_nothing_behind(name, owner, method, error, monkeypatch):
    expected = FITS[name]()
    before = process_state()
    with monkeypatch.context() as patch:
        fails_later(patch, owner, method, error("stop"))
        with pytest.raises(error, match="stop"):
            FITS[name]()
    assert process_state() == before
    assert not threads._users
    # The next fit knows nothing of it: bit for bit.
    assert FITS[name]().log_likelihood == expected.log_likelihood


@pytest.mark.parametrize("kind", ["parametric", "semiparametric", "cases"])
def test_an_interrupted_bootstrap_leaves_nothing_behind(sleep, kind):
    calls = []

    def interrupted(result: lme4py.MixedResult) -> float:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return result.sigma

    before = process_state()
    with pytest.raises(KeyboardInterrupt):
        sleep.bootstrap(50, interrupted, seed=1, type=kind)
    assert len(calls) == 4
    assert process_state() == before
    assert not threads._users


SCRIPT = """
import os, signal, sys, threading, time, warnings
from pathlib import Path
import lme4py
from lme4py.engine.threads import _libraries

def children():
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            found += (task / "children").read_text().split()
        except OSError:  # the thread has ended
            pass
    return [child for child in found if "tracker" not in (Path("/proc") / child / "cmdline").read_text()]

def slow(result):
    if not Path(sys.argv[1]).exists():
        Path(sys.argv[1]).touch()
    time.sleep(0.05)
    return result.sigma

def interrupt():
    while not Path(sys.argv[1]).exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)

result = lme4py.lmer("Yield ~ 1 + (1 | Batch)", lme4py.load_dataset("Dyestuff"))
before = [library.get_num_threads() for library in _libraries()]
threading.Thread(target=interrupt, daemon=True).start()
try:
    result.bootstrap(4000, slow, seed=1, n_jobs=2)
except KeyboardInterrupt:
    print("interrupted")
deadline = time.monotonic() + 10
while children() and time.monotonic() < deadline:
    time.sleep(0.05)
print(len(children()), before == [library.get_num_threads() for library in _libraries()])
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are counted in /proc")
def test_ctrl_c_stops_the_processes_of_a_bootstrap(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    arguments = [sys.executable, "-W", "ignore", str(script), str(tmp_path / "begun")]
    path = os.pathsep.join([str(Path(lme4py.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": path}, check=False
    )
    assert done.stdout.split() == ["interrupted", "0", "True"], done.stderr


# -- processes that die ----------------------------------------------------------------------------


class DyingOnce:
    """The residual standard deviation; the first process that computes it is killed."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __call__(self, result: lme4py.MixedResult) -> float:
        if os.getpid() != self.parent and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return float(result.sigma)

    parent = 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there are no signals to kill with")
def test_a_killed_process_is_reported_and_its_work_done_again(tmp_path):
    result = FITS["lmm"]()
    serial = result.bootstrap(40, lambda r: float(r.sigma), seed=4)
    func = DyingOnce(tmp_path / "flag")
    func.parent = os.getpid()
    with pytest.warns(Lme4Warning, match="was killed .* of 40 replicates; the others are computed again"):
        found = result.bootstrap(40, func, seed=4, n_jobs=2)
    assert found.failures == ()
    # The same seeds in another process: bit for bit.
    np.testing.assert_array_equal(found.replicates.to_numpy(), serial.replicates.to_numpy())


class FakeTask:
    """Replicates are their own seeds; one of them kills."""

    def __call__(self, chunk: list[int]) -> Part:
        if 13 in chunk:
            raise BrokenProcessPool
        return Part(np.array(chunk, dtype=float)[:, None], (), 0)


def test_only_the_replicate_that_kills_is_lost(monkeypatch):
    def generator(task, chunks, n_jobs, max_nbytes):
        yield from (task(chunk) for chunk in chunks)

    monkeypatch.setattr(bootstrap_workers, "_generator", generator)
    with pytest.warns(Lme4Warning, match="after 10 of 30 replicates") as caught:
        parts = list(bootstrap_workers.run_chunks(FakeTask(), [list(range(k, k + 10)) for k in (0, 10, 20)], 2))
    assert len(caught) == 2
    values = np.concatenate([part.values[:, 0] for part in parts])
    np.testing.assert_array_equal(values, [*range(13), np.nan, *range(14, 30)])
    assert next(why for part in parts for _, why in part.failures).startswith(
        "the process that computed this replicate"
    )


@pytest.mark.parametrize("error", [OSError("no space left on device"), PermissionError("read-only")])
def test_without_room_for_files_arrays_travel_in_pipes(monkeypatch, error):
    """A full disk: large arrays cannot be shared through files."""
    used = []

    def generator(task, chunks, n_jobs, max_nbytes):
        used.append(max_nbytes)
        for chunk in chunks:
            if max_nbytes is not None and chunk[0] == 10:
                raise error
            yield task(chunk)

    monkeypatch.setattr(bootstrap_workers, "_generator", generator)
    parts = list(bootstrap_workers.run_chunks(FakeTask(), [[0, 1], [10, 11], [20]], 2))
    assert used == ["1M", None]
    assert np.concatenate([part.values[:, 0] for part in parts]).tolist() == [0, 1, 10, 11, 20]


# -- directories -----------------------------------------------------------------------------------


def test_no_directory_has_to_be_writable(tmp_path):
    """No home, no temporary directory, a working directory that has been removed."""
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); os.rmdir(os.getcwd())\n"
        "import lme4py\n"
        "r = lme4py.lmer('Yield ~ 1 + (1 | Batch)', lme4py.load_dataset('Dyestuff'))\n"
        "b = r.bootstrap(5, seed=1); r.summary(); r.conf_int(); print(r.converged, b.failures)"
    )
    nowhere = str(tmp_path / "no such directory")
    env = {k: v for k, v in os.environ.items() if k not in ("HOME", "PYTHONPATH")}
    env |= dict.fromkeys(("TMPDIR", "JOBLIB_TEMP_FOLDER", "XDG_CACHE_HOME", "MPLCONFIGDIR"), nowhere)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(Path(lme4py.__file__).parents[1])],
        cwd=gone,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["True", "()"], done.stderr


# -- threads ---------------------------------------------------------------------------------------


def test_different_fits_in_threads_equal_serial_ones():
    """All kinds of fits at once; the limits of BLAS threads that they share are taken back at the end."""
    before = pools()
    serial = {name: make() for name, make in FITS.items()}
    names = list(FITS) * 4
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda name: FITS[name](), names))
    for name, result in zip(names, results, strict=True):
        # The same operations in the same order: bit for bit.
        assert result.log_likelihood == serial[name].log_likelihood
        np.testing.assert_array_equal(result.params, serial[name].params)
        np.testing.assert_array_equal(result.cov_params(), serial[name].cov_params())
    assert pools() == before


def test_bootstraps_in_threads_equal_serial_ones(sleep):
    serial = [sleep.bootstrap(30, seed=seed).replicates.to_numpy() for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda seed: sleep.bootstrap(30, seed=seed).replicates.to_numpy(), range(4)))
    np.testing.assert_array_equal(parallel, serial)  # bit for bit
