"""Fréchet distance between images and their reconstructions: the quality that a perfect prior would have.

Esser et al. 2021 (arXiv:2012.09841) print it beside the distance of samples: what the first stage loses, no prior
over its codes can bring back. With Inception's features, and only then, it is called ``rfid``. Both sides are the
same images, so that the interval of the other distances, which is for independent sets, does not hold: there is none.
"""

from __future__ import annotations

from evaluation.metrics.base import Exam, MetricInfo, Score
from evaluation.metrics.frechet import frechet_distance, frechet_score

PAPER = "Heusel et al. 2017, arXiv:1706.08500; Esser et al. 2021, arXiv:2012.09841"

METRIC = MetricInfo(
    names=("rfd_{features}",),
    higher_is_better=False,
    min_samples=50,
    paper=PAPER,
    summary="Fréchet distance between test images and their reconstructions: what no prior over the codes can undo",
    compute=lambda exam: (reconstruction_distance(exam),),
)
AGAINST_TRAIN = MetricInfo(
    names=("rfd_{features}_train",),
    higher_is_better=False,
    min_samples=50,
    paper=PAPER,
    summary="the same between reconstructed test images and training images, which are independent sets",
    compute=frechet_score,
    reference="train",
)


def reconstruction_distance(exam: Exam) -> Score:
    """The distance, without an interval."""
    return Score(frechet_distance(exam.real, exam.fake))
