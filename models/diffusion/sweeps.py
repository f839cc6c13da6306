"""Which settings of a sampler are worth a curve: network evaluations per sampler, and guidance.

Methods are compared at equal cost, so that what is asked for is network evaluations; every sampler takes as many
steps as it can afford, and what it really spent is counted when it samples.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.base import Asked, Setting, Sweep
from models.diffusion.guidance import Guidance
from models.diffusion.samplers import TWO_EVALUATIONS, sampler_named

SWEEP_OPTIONS = ("samplers", "nfe", "guidance")
NFE = (1, 2, 3, 5, 10, 19, 35, 50, 100, 250)
SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
MOST_NFE = 1000


def affordable_steps(sampler: str, nfe: int, cost: int = 1) -> int:
    """The most steps of a sampler that take at most ``nfe`` evaluations of ``cost`` each; 0 if not even one does."""
    evaluations = nfe // cost
    return (evaluations + 1) // 2 if sampler in TWO_EVALUATIONS else evaluations


def nfe_sweep(samplers: Sequence[str], asked: Sequence[int], guidance_scale: float) -> Sweep:
    """Quality against network evaluations, a line per sampler, at one guidance scale."""
    cost = Guidance(guidance_scale).evaluations(1.0)
    steps = {name: [affordable_steps(name, nfe, cost) for nfe in sorted(asked)] for name in samplers}
    return Sweep("nfe", "network evaluations", "network evaluations per image (NFE)", log=True, settings=tuple(
        Setting(name, {"sampler": name, "num_steps": count, "guidance_scale": guidance_scale})
        for name, counts in steps.items() for count in dict.fromkeys(counts) if count > 0
    ))


def guidance_sweep(scales: Sequence[float], sampler: str, num_steps: int) -> Sweep:
    """Quality against the guidance scale, with one sampler and one number of steps."""
    title = f"{sampler}, {num_steps} steps"
    return Sweep("guidance", "guidance", "guidance scale (0: without labels, 1: as trained)", log=False, settings=tuple(
        Setting(title, {"sampler": sampler, "num_steps": num_steps, "guidance_scale": scale}, x=scale)
        for scale in sorted(dict.fromkeys(scales))
    ))


def family_sweeps(
    asked: Asked, *, suited: Sequence[str], sampler: str, num_steps: int, guidance_scale: float
) -> tuple[Sweep, Sweep]:
    """Both sweeps of a member of the family.

    Args:
        asked: Values of ``SWEEP_OPTIONS`` in place of the usual ones.
        suited: Samplers that go with the member.
        sampler: The preset's, which is always among them.
        num_steps: The preset's.
        guidance_scale: The preset's.

    Raises:
        ValueError: if a sampler does not exist or a number is out of range.
    """
    samplers = [str(name) for name in asked.get("samplers", tuple(dict.fromkeys((*suited, sampler))))]
    nfe = [int(value) for value in asked.get("nfe", NFE)]
    scales = [Guidance(float(value)).scale for value in asked.get("guidance", SCALES)]
    for name in samplers:
        sampler_named(name)
    if not all(1 <= value <= MOST_NFE for value in nfe):
        raise ValueError(f"nfe must lie in 1..{MOST_NFE}, not {', '.join(map(str, nfe))}")
    return nfe_sweep(tuple(dict.fromkeys(samplers)), nfe, guidance_scale), guidance_sweep(scales, sampler, num_steps)
