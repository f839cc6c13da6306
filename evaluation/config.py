"""What the exam may be told; every model of a comparison sits the same one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationConfig:
    """The exam, the same for every model."""

    num_samples: int = 10_000
    """Generated images; capped at the size of the test split, so that both sides have the same n.
    Of images made elsewhere at most so many take part, drawn at random."""
    num_likelihood_images: int = 1_000
    """Test images whose likelihood bound is averaged; capped at the size of the test split."""
    num_slow_likelihood_images: int = 32
    """The same for likelihoods that need hundreds of network evaluations an image (ODE, AIS); 0 leaves them out."""
    features: tuple[str, ...] = ()
    """Feature extractors, the main one first (default: the dataset's own); see ``python run.py list``."""
    batch_size: int = 250
    """Images per batch when sampling for the exam and when scoring likelihood."""
    speed_repeats: int = 5
    """Timed repetitions per batch size when measuring sampling speed."""

    def __post_init__(self) -> None:
        least_values = {
            "num_samples": 2, "num_likelihood_images": 2, "batch_size": 1, "speed_repeats": 1,
        }
        for name, least in least_values.items():
            if getattr(self, name) < least:
                raise ValueError(f"evaluation.{name} must be at least {least}, not {getattr(self, name)}")
        if self.num_slow_likelihood_images != 0 and self.num_slow_likelihood_images < 2:
            found = self.num_slow_likelihood_images
            raise ValueError(f"evaluation.num_slow_likelihood_images must be 0 or at least 2, not {found}")
