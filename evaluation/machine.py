"""What a machine is called and which libraries it has; imports no torch."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "numpy", "scipy", "scikit-learn", "torchmetrics", "torch-fidelity",
)


def cpu_name() -> str:
    """The processor's own name where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
