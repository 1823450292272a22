"""The machine, the versions and the date of a run."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path


def cpu_name() -> str:
    """Model of the processor and number of cores."""
    name = platform.processor() or platform.machine()
    try:
        for entry in Path("/proc/cpuinfo").read_text().splitlines():
            if entry.startswith("model name"):
                name = entry.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores"


def commit() -> str:
    """The commit of the checkout, with a mark when files differ from it."""
    here = Path(__file__).resolve().parents[1]
    done = subprocess.run(["git", "-C", str(here), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if done.returncode:
        return "unknown"
    changed = ["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no", "lme4py"]
    state = subprocess.run(changed, capture_output=True, text=True).stdout.strip()
    return done.stdout.strip() + (" with changes" if state else "")


@dataclass(frozen=True)
class Machine:
    """Where and when a suite ran.

    Attributes
    ----------
    versions : dict
        Program or library -> version.
    processor, day : str
    """

    versions: dict[str, str]
    processor: str = field(default_factory=lambda: f"{cpu_name()}, {platform.system()} {platform.machine()}")
    day: str = field(default_factory=lambda: date.today().isoformat())

    @property
    def caption(self) -> str:
        """Versions, processor and date below a plot."""
        return f"{self._programs}\n{self.processor}; {self.day}"

    @property
    def _programs(self) -> str:
        return ", ".join(f"{name} {version}" for name, version in self.versions.items())

    def heading(self, title: str, threads: int, command: str) -> str:
        """Versions, processor, date and command line."""
        return (
            f"# {title}, {threads} thread{'s' if threads > 1 else ''}\n\n"
            f"- {self._programs}; lme4py commit {commit()}\n- {self.processor}\n- {self.day}\n- `{command}`\n"
        )
