"""Configuration of one cell: frozen dataclasses of plain values, without torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.config import EvaluationConfig

__all__ = ["Cell", "EvaluationConfig"]


@dataclass(frozen=True)
class Cell:
    """One unit of work. Its identity is the hash of its configuration and of the data."""

    model: str
    dataset: str
    budget: float
    seed: int
    model_config: Any
    data_config: Any
    evaluation: EvaluationConfig

    def resolved(self) -> dict[str, Any]:
        """Everything that decides the result except the seed, as JSON has it (tuples are lists)."""
        content = {
            "model": self.model,
            "dataset": self.dataset,
            "budget": self.budget,
            "model_config": asdict(self.model_config),
            "data_config": asdict(self.data_config),
            "evaluation": asdict(self.evaluation),
        }
        return json.loads(json.dumps(content))

    def config_hash(self, dataset_sha256: str) -> str:
        """First 12 hex digits of the SHA-256 of the resolved configuration and the data's hash."""
        config = {k: v for k, v in self.resolved().items() if k != "data_config"}  # the data's hash says it all
        text = json.dumps({"config": config, "data": dataset_sha256}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def folder(self, out: Path, dataset_sha256: str) -> Path:
        """Where this cell lives: <out>/<model>/<dataset>/<hash>/seed=<n>."""
        return out / self.model / self.dataset / self.config_hash(dataset_sha256) / f"seed={self.seed}"
