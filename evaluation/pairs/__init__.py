"""What is asked of images and what a first stage gives back of them; one file per metric. Imports no torch."""

from evaluation.pairs.base import PairMetric, Pairs
from evaluation.pairs.driver import pair_metrics, score_pairs

__all__ = ["PairMetric", "Pairs", "pair_metrics", "score_pairs"]
