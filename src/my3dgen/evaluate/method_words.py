"""Figures as words, with the digits they can carry."""

from my3dgen.evaluate.method_summary import COSTS


def number(figure: str, value: float) -> str:
    """A figure with the digits it can carry."""
    if figure in COSTS:
        return f"{value:,.0f}"
    if figure in ("floaters", "depth_error"):
        return f"{value:.5f}"
    return f"{value:.2f}" if "psnr" in figure else f"{value:.3f}"


def signed(figure: str, value: float) -> str:
    """A difference, always with its sign."""
    return ("+" if value >= 0 else "") + number(figure, value)


def interval(figure: str, low: float | None, high: float | None) -> str:
    """An interval in brackets after a space, or nothing."""
    return "" if low is None or high is None else f" [{number(figure, low)}, {number(figure, high)}]"
