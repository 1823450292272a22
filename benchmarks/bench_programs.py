"""The programs that are compared: how each is started, asked and stopped."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

WORKERS = Path(__file__).resolve().parent / "workers"

# Each rival has a virtual environment of its own, so that its dependencies do not meet ours.
REQUIREMENTS = {
    "glmm": ["glmm~=0.6.0", "pandas"],
    "mixedlm": ["mixedlm~=1.3.0", "pandas"],
    "statsmodels": ["statsmodels~=0.14.0", "pandas"],
}

R_PACKAGES = ("lme4", "glmmTMB", "ordinal", "pbkrtest", "emmeans")


class Stopped(Exception):
    """A worker was stopped, or ended by itself; the text says why."""


def memory_of(pid: int, entry: str) -> int | None:
    """`VmRSS` or `VmHWM` of a process in bytes; None where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(entry)), None)


def reset_peak(pid: int) -> None:
    """Let the peak memory of a process count from now on (Linux only)."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def thread_environment(threads: int | None) -> dict[str, str]:
    """The environment with the number of threads of every linear-algebra library fixed; None leaves it to them."""
    names = [f"{name}_NUM_THREADS" for name in ("OPENBLAS", "OMP", "MKL", "BLIS", "RAYON", "NUMEXPR")]
    rest = {key: value for key, value in os.environ.items() if key not in names}
    return rest if threads is None else rest | dict.fromkeys(names, str(threads))


def total_memory() -> int:
    """Bytes of the machine, 8 GB where that is unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 8 * 2**30


@dataclass
class Program:
    """One long-lived worker process.

    Attributes
    ----------
    name : str
    command : list of str
        Without the folder of the data, which comes last.
    folder : Path
        Where `models.tsv` is.
    environment : dict
    memory_limit : int
        Bytes at which the process is stopped, so that a fit cannot take the machine down.
    most : int
        Largest memory seen while waiting for the last answer, in bytes.
    """

    name: str
    command: list[str]
    folder: Path
    environment: dict[str, str]
    memory_limit: int
    most: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    loaded: str | None = None
    _process: subprocess.Popen[str] | None = None
    _answers: queue.Queue[str | None] = field(default_factory=queue.Queue)

    @property
    def pid(self) -> int:
        """Process number of the running worker."""
        return self._process.pid if self._process is not None else -1

    def start(self) -> None:
        """Start the worker unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        self._answers = queue.Queue()
        self.loaded = None
        self._process = subprocess.Popen(
            [*self.command, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.folder / f"{self.name}.log").open("a"),
            text=True,
            env=self.environment,
        )
        assert self._process.stdout is not None
        threading.Thread(target=_collect, args=(self._process.stdout, self._answers), daemon=True).start()
        self.versions = self._read(60.0)["versions"]

    def ask(self, request: str, limit: float) -> dict[str, Any]:
        """Send one line and wait for the answer.

        Raises
        ------
        Stopped
            After `limit` seconds, above the memory limit, or when the worker ended.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Stopped("the program ended") from None
        return self._read(limit)

    def _read(self, limit: float) -> dict[str, Any]:
        end = time.monotonic() + limit
        self.most = 0
        while True:
            try:
                line = self._answers.get(timeout=min(0.2, max(0.001, end - time.monotonic())))
            except queue.Empty:
                self._check(end, limit)
                continue
            if line is None:
                self.stop()
                raise Stopped(f"ended by itself: {self.last_words()}")
            return dict(json.loads(line))

    def _check(self, end: float, limit: float) -> None:
        self.most = max(self.most, memory_of(self.pid, "VmRSS") or 0)
        if time.monotonic() >= end:
            self.stop()
            raise Stopped(f"> {limit:.0f} s")
        if self.most > self.memory_limit:
            self.stop()
            raise Stopped(f"> {self.memory_limit / 2**30:.0f} GB")

    def last_words(self) -> str:
        """The last line of what the worker wrote to standard error."""
        lines = (self.folder / f"{self.name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "no message"

    def stop(self) -> None:
        """End the worker."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.loaded = None


def _collect(stream: IO[str], answers: queue.Queue[str | None]) -> None:
    for line in stream:
        answers.put(line)
    answers.put(None)


def environment_of(rival: str, folder: Path) -> Path | None:
    """Python of the virtual environment of a rival, made when it is not there; None when that is impossible."""
    home = folder / rival
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if python.exists() and _imports(python, rival):
        return python
    print(f"{rival}: making a virtual environment ({', '.join(REQUIREMENTS[rival])}) ...", flush=True)
    steps = (
        [sys.executable, "-m", "venv", str(home)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS[rival]],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            print(f"{rival}: skipped, it cannot be installed ({lines[-1] if lines else 'no message'})", flush=True)
            return None
    return python if _imports(python, rival) else None


def _imports(python: Path, module: str) -> bool:
    return subprocess.run([str(python), "-c", f"import {module}, pandas"], capture_output=True).returncode == 0


def find_r(package: str) -> str | None:
    """Rscript, when it and the package are there."""
    rscript = shutil.which("Rscript")
    if rscript is None:
        return None
    test = subprocess.run([rscript, "--vanilla", "-e", f"library({package})"], capture_output=True)
    return rscript if test.returncode == 0 else None


def command_of(name: str, venvs: Path) -> list[str] | None:
    """How a program is started; None, with a line that says so, when it is not available."""
    if name == "lme4py":
        return [sys.executable, str(WORKERS / "python_lme4py.py")]
    if name in R_PACKAGES:
        rscript = find_r(name)
        if rscript is None:
            print(f"{name}: skipped, Rscript with {name} was not found", flush=True)
            return None
        return [rscript, "--vanilla", str(WORKERS / f"r_{name}.R")]
    python = environment_of(name, venvs)
    if python is None:
        return None
    return [str(python), str(WORKERS / f"rival_{name}.py")]
