"""What ``sample`` was asked for: options that go together. No torch, and nothing is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.cli_options import UsageError

THRESHOLDS = ("none", "static", "dynamic")
MOVING = (".gif", ".webp")
SUFFIXES = (".png", ".npz", *MOVING)
DEFAULT_N, FEW = 64, 16  # images; few where they are looked at one by one
MAX_FORMING = 100  # rows of a strip

# The options that only some models have, and the arguments of ``GenerativeModel.sample`` behind them.
ARGUMENTS = {
    "steps": "num_steps", "sampler": "sampler", "guidance_scale": "guidance_scale",
    "guidance_interval": "guidance_interval", "threshold": "threshold", "eta": "eta", "temperature": "temperature",
    "top_k": "top_k", "top_p": "top_p", "choice_temperature": "choice_temperature", "psi": "psi",
    "trajectory": "trajectory", "image": "image", "strength": "strength", "mask": "mask", "interpolate": "noise",
}  # fmt: skip
READ = ("image", "mask", "interpolate")  # those whose argument is made from what they name


def option(name: str) -> str:
    """How the command line writes a field of the request."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class SampleRequest:
    """Images to make and where to; None (``trajectory``: False) where an option is not given.

    ``image`` and ``mask`` are files; ``interpolate`` is the seed at the other end of the way.

    Raises:
        UsageError: if options do not go together.
    """

    checkpoint: Path
    out: Path
    n: int
    seed: int = 0
    label: int | None = None
    steps: int | None = None
    sampler: str | None = None
    guidance_scale: float | None = None
    guidance_interval: tuple[float, float] | None = None
    threshold: str | None = None
    eta: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    choice_temperature: float | None = None
    psi: float | None = None
    trajectory: bool = False
    image: Path | None = None
    strength: float | None = None
    mask: Path | None = None
    interpolate: int | None = None

    def __post_init__(self) -> None:
        for applies, sentence in self._contradictions():
            if applies:
                raise UsageError(sentence)

    def _contradictions(self) -> list[tuple[bool, str]]:
        """Whether something contradicts something else, and how that is said."""
        out, to, forms = repr(str(self.out)), self.interpolate, self.trajectory
        pictured = self.image is not None
        return [
            (self.out.suffix not in SUFFIXES, f"--out {out} must end in .png, .npz, .gif or .webp"),
            (
                self.out.suffix in MOVING and not forms and to is None,
                f"--out {out} is an animation, which needs --trajectory or --interpolate",
            ),
            (
                forms and self.n > MAX_FORMING,
                f"--n must be at most {MAX_FORMING} with --trajectory, not {self.n}",
            ),
            (self.mask is not None and not pictured, "--mask needs --image, the picture that is painted in"),
            (self.strength is not None and not pictured, "--strength needs --image, the picture to start from"),
            (
                self.strength is not None and self.mask is not None,
                "--strength does not go with --mask: what is painted anew starts from noise alone",
            ),
            (
                pictured and self.strength is None and self.mask is None,
                "--image needs --strength, to start from it, or --mask, to paint a part of it anew",
            ),
            (to is not None and self.n < 2, f"--interpolate needs --n of at least 2, not {self.n}"),
            (to == self.seed, f"--interpolate must be another seed than that of --seed, {self.seed}"),
        ]

    @property
    def given(self) -> list[str]:
        """The fields of ``ARGUMENTS`` that were asked for."""
        values = {name: getattr(self, name) for name in ARGUMENTS}
        return [name for name, value in values.items() if value is not None and value is not False]  # 0 is a value

    @property
    def plain_arguments(self) -> dict[str, Any]:
        """Arguments of the model's sampler that are values as given."""
        return {ARGUMENTS[name]: getattr(self, name) for name in self.given if name not in READ}

    @property
    def files(self) -> tuple[Path, ...]:
        """What is written: ``out``, or with ``trajectory`` the strip and the animation in both forms."""
        if self.trajectory and self.out.suffix != ".npz":
            return tuple(self.out.with_suffix(suffix) for suffix in (".png", *MOVING))
        return (self.out,)
