"""Training budgets in FLOPs, counted over every stage (a multiply-add is two FLOPs)."""

from __future__ import annotations

BUDGETS: dict[str, tuple[float, str]] = {
    "smoke": (2e10, "a few steps, to see that everything runs"),
    "small": (3e12, "about a minute of training on two CPU cores; enough for digits"),
    "medium": (5e13, "about ten minutes on two CPU cores; Fashion-MNIST becomes recognisable"),
    "large": (5e14, "about two hours on two CPU cores"),
    "xlarge": (1e16, "for a GPU"),
}


def budget_flops(text: str) -> float:
    """FLOPs of a budget given by name or as a number; ``ValueError`` says what is allowed."""
    if text in BUDGETS:
        return BUDGETS[text][0]
    try:
        flops = float(text)
    except ValueError:
        flops = float("nan")
    if not 1e6 <= flops <= 1e24:
        names = ", ".join(BUDGETS)
        raise ValueError(f"budget {text!r} is neither one of {names} nor a number of FLOPs from 1e6 to 1e24")
    return flops
