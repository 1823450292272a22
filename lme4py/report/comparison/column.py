"""What a comparison shows of one model, whichever package fitted it."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Entry", "ModelColumn"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One estimate of one model; what it does not have is None.

    Attributes
    ----------
    estimate : float
    std_error, lower, upper, p_value : float, optional
    """

    estimate: float
    std_error: float | None = None
    lower: float | None = None
    upper: float | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class ModelColumn:
    """One model of a comparison.

    Attributes
    ----------
    fixed, thresholds, random : dict of str to Entry
        By label.
    facts : dict of str to (float or str)
        Sizes and criteria by label.
    response : str
        Its name; "" where that says nothing.
    reml : bool
    exponentiated : bool
    """

    fixed: dict[str, Entry]
    thresholds: dict[str, Entry] = field(default_factory=dict)
    random: dict[str, Entry] = field(default_factory=dict)
    facts: dict[str, float | str] = field(default_factory=dict)
    response: str = ""
    reml: bool = False
    exponentiated: bool = False

    @property
    def n_obs(self) -> float | str | None:
        """Rows used."""
        return self.facts.get("Rows")
