"""How pages and tables write numbers."""

from __future__ import annotations

NOTHING = "–"


def number(value: float, digits: int) -> str:
    """A number with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")
