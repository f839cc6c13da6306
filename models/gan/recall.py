"""Recall of each class while training goes on: are the real images of a class among what is generated of it?

Kynkäänniemi et al. 2019 (arXiv:1904.06991), Eq. 1-2 with k = 3, class by class and in pixel space: the share of a
few real images that lie in the union of balls around as many generated ones, each reaching to its k-th neighbour.
A look at training, no number for tables: few images, real ones of training, pixels instead of features. It starts at
zero, as nothing real is near until images are recognisable; what tells of a collapse is a fall back to zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.base import to_float

NEIGHBOURS = 3
CLASSES = 10  # at most so many are looked at, the first ones
PER_CLASS = 32  # images, of each side
SEED = 20_240_611  # of the latents, the same at every look
SEEN = 0.1  # mean recall from which a generator counts as having been among real images
WARM_UP = 0.1  # of the budget: balls around a random start may be wide enough to hold anything
PATIENCE = 5  # looks in a row, a quarter of a long stage's


def recall(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> float:
    """Share of real images (N, ...) within a ball around some generated one (M, ...), M > k, border included.

    A ball reaches to the k-th nearest other generated image: copies have a radius of 0.
    """
    if len(fake) <= k or len(real) == 0:
        raise ValueError(f"recall needs more than {k} generated and 1 real image, not {len(fake)} and {len(real)}")
    x, y = (images.detach().flatten(1).double() for images in (real, fake))
    radii = distances(y, y).kthvalue(k + 1, dim=1).values  # the first is the image itself
    return float((distances(x, y) <= radii).any(1).double().mean())


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances of rows (N, D) and (M, D), (N, M); those of equal rows are exactly 0."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def recall_by_class(network: nn.Module, images: Tensor, labels: Tensor) -> dict[int, float]:
    """Recall of up to ``CLASSES`` classes, of the first ``PER_CLASS`` real images of each.

    Args:
        network: z (B, latent_dim) and labels (B,) to images (B, C, H, W) in [-1, 1]; put into evaluation mode.
            Its latents come from a generator of their own, so that training draws what it would draw without this.
        images: Real, uint8 (N, C, H, W).
        labels: Their classes, int64 (N,).

    Returns:
        By class, in rising order.
    """
    device = next(network.parameters()).device
    asked = labels.unique()[:CLASSES].repeat_interleave(PER_CLASS)
    z = torch.randn(len(asked), network.latent_dim, generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        fake = network.eval()(z.to(device), asked.to(device)).cpu()
    return {
        label: recall(to_float(images[(labels == label).nonzero()[:PER_CLASS, 0]]), fake[asked == label])
        for label in asked.unique().tolist()
    }


class RecallWatch(nn.Module):
    """Notices that recall fell to 0 in every class after it was there; both buffers are resumable.

    A generator that never came near real images is not accused: short trainings look like that, and are healthy.
    ``peak`` (float64) is the highest mean recall after the warm-up, ``count`` (int64) the looks in a row with none.
    """

    peak: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("peak", torch.zeros((), dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def seen(self, recalls: Mapping[int, float], progress: float) -> None:
        """Take in one more look, at a fraction of the budget in [0, 1)."""
        if progress < WARM_UP:
            return
        mean = sum(recalls.values()) / len(recalls)
        self.peak.clamp_(min=mean)
        self.count.copy_(self.count + 1 if mean == 0 else torch.zeros_like(self.count))

    def reason(self) -> str:
        """Why training must stop; empty while it need not."""
        if float(self.peak) < SEEN or int(self.count) < PATIENCE:
            return ""
        return (
            f"the generator collapsed: recall, {float(self.peak):.2f} at best, was 0 in every class at {PATIENCE} "
            "measurements in a row"
        )
