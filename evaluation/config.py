"""What the exam may be told; every model of a comparison sits the same one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationConfig:
    """The exam, the same for every model."""

    num_samples: int = 10_000
    """Generated images; capped at the size of the test split, so that both sides have the same n."""
    num_likelihood_images: int = 1_000
    """Test images whose likelihood bound is averaged; capped at the size of the test split."""
    batch_size: int = 250
    """Images per batch when sampling for the exam and when scoring likelihood."""
    speed_repeats: int = 5
    """Timed repetitions per batch size when measuring sampling speed."""

    def __post_init__(self) -> None:
        for name, least in (("num_samples", 2), ("num_likelihood_images", 2), ("batch_size", 1), ("speed_repeats", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"evaluation.{name} must be at least {least}, not {getattr(self, name)}")
