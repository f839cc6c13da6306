"""Configuration of one cell: frozen dataclasses of plain values, without torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.config import EvaluationConfig

__all__ = ["Cell", "EvaluationConfig", "TrainerConfig"]

MOST_PROCESSES = 1024
STRATEGIES = ("auto", "ddp")
NO_SHARDING = (
    "trainer.strategy fsdp is not offered: it spreads the weights of networks too large for one device, these fit on "
    "every device, and it would shard them and their moving average apart; use ddp"
)


@dataclass(frozen=True)
class TrainerConfig:
    """How many processes train a cell together. It changes how long that takes and is no part of the cell."""

    devices: int = 1
    """Processes on each machine, each with a GPU of its own, or its part of the cores where there is none."""

    num_nodes: int = 1
    """Machines; more than one needs torchrun or srun."""

    strategy: str = "auto"
    """auto or ddp: every process holds the whole model and its share of every batch."""

    def __post_init__(self) -> None:
        for name in ("devices", "num_nodes"):
            if not 1 <= getattr(self, name) <= MOST_PROCESSES:
                raise ValueError(f"trainer.{name} must be from 1 to {MOST_PROCESSES}, not {getattr(self, name)}")
        if self.strategy.startswith("fsdp"):
            raise ValueError(NO_SHARDING)
        if self.strategy not in STRATEGIES:
            raise ValueError(f"trainer.strategy must be one of {', '.join(STRATEGIES)}, not {self.strategy!r}")

    @property
    def processes(self) -> int:
        """All processes together."""
        return self.devices * self.num_nodes

    def refusal(self, batch_size: int) -> str | None:
        """Why a batch cannot be shared by the processes, in one sentence; None if it can."""
        if batch_size % self.processes == 0:
            return None
        return (
            f"the batch size {batch_size} is that of all processes together "
            f"and must be divisible by their number, {self.processes}"
        )


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
