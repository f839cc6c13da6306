"""Whether a record is that of the cell whose folder it lies in: its identity, computed again from the record.

The hash in a cell's path covers configuration and data (``Cell.config_hash``; for controls and images
made elsewhere also the schema), and a record holds both, so the path can be checked without the data.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from evaluation.files import FileError, read_json
from evaluation.record import Record

CONFIG_FILE = "config.json"


def identity(record: Record) -> str:
    """The hash that a record's configuration and data give."""
    content: dict[str, Any] = {"config": record.config, "data": record.provenance.dataset_sha256}
    if record.source == "trained":
        content["config"] = {key: value for key, value in record.config.items() if key != "data_config"}
    else:
        content["schema"] = record.schema_version
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def place(record: Record) -> str:
    """Where a record lies below the folder of runs."""
    if record.source == "control":
        return f"controls/{record.dataset}/{record.config_hash}/{record.model}.json"
    return f"{record.model}/{record.dataset}/{record.config_hash}/seed={record.seed}/record.json"


def identity_fault(record: Record, path: Path, out: Path) -> str | None:
    """Why a record is not that of its place, or its configuration not that beside it, in one sentence; else None."""
    where = path.relative_to(out).as_posix()
    if place(record) != where:
        return f"{path} belongs to another place: it is the record of {place(record)}"
    expected = identity(record)
    if expected != record.config_hash:
        return f"{path} says that its hash is {record.config_hash} where its configuration and data give {expected}"
    for key in ("model", "dataset"):
        if record.source == "trained" and record.config.get(key) != getattr(record, key):
            return f"{path} has a configuration of another {key}"
    config = path.with_name(CONFIG_FILE)
    if record.source != "trained" or not config.exists():
        return None
    try:
        told = read_json(config)
    except FileError as error:
        return str(error)
    own = record.config | {"seed": record.seed, "dataset_sha256": record.provenance.dataset_sha256}
    if told == own:
        return None
    keys = sorted(set(told) ^ set(own) or (k for k in own if told[k] != own[k])) if isinstance(told, dict) else []
    return f"{config} differs from the configuration in the record: {', '.join(keys)[:200] or 'it is none'}"
