"""What an archive says about itself: a page for people, and a Croissant description for programs.

Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec.html). Both are made from the
records alone, so that the same cells give the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from experiments.archive import layout
from reports.collect import Run

TITLE = "Paragon: image generators compared on equal terms"
LICENCE = "https://www.apache.org/licenses/LICENSE-2.0"
CITATION = f"@misc{{paragon, title={{{TITLE}}}, author={{The Paragon contributors}}}}"
README = """# {title}

{count}, as measured by Paragon, a benchmark of image generators: training compute, the same data in the same
order, the same exam. Made by `python run.py export`.

| model | dataset | configuration | seed | source | measured |
|---|---|---|---:|---|---|
{rows}

## Files

- `<model>/<dataset>/<configuration>/seed=<n>/`: one finished cell: `record.json` (all that was measured, and
  under which conditions), `config.json`, `samples.npz` (the images that were examined: `images` uint8
  (N, C, H, W), `labels` int64), pictures, `metrics.csv` (training log) and `done`, the seal over them.{checkpoints}
- `controls/`: rows that were not trained, with their images; some are images of the dataset itself.
- `results.csv`: one row per record. `metadata.json`: a Croissant description. `SHA256SUMS`: checksums.

## Check, read back, verify

```
sha256sum -c SHA256SUMS                          # in the unpacked folder
python run.py import FILE.zip --out runs         # checks everything, then adds what is not there yet
python run.py report runs                        # tables, figures and the page, from the records
python run.py verify runs                        # published tables against records
```

## Licence

Numbers and generated images may be used under the Apache License 2.0, as the program that made them. Images of
the datasets, among the controls, and what was made elsewhere keep the licence of their source.
"""

CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract", "field": "cr:field",
    "fileProperty": "cr:fileProperty", "fileObject": "cr:fileObject", "fileSet": "cr:fileSet",
    "format": "cr:format", "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5", "parentField": "cr:parentField",
    "path": "cr:path", "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex",
    "repeated": "cr:repeated", "replace": "cr:replace", "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip
FORMATS = {
    ".json": "application/json", ".csv": "text/csv", ".png": "image/png", ".npz": "application/zip",
    ".ckpt": "application/zip",
}  # fmt: skip


def _count(runs: tuple[Run, ...]) -> str:
    kinds = Counter("controls" if run.control else "cells" for run in runs)
    return ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))


def readme(runs: tuple[Run, ...], *, checkpoints: bool) -> str:
    """The page: what it is, the cells, how to check and import them, the licence."""
    rows = "\n".join(
        f"| {run.name} | {run.record.dataset} | {run.record.config_hash} | {run.record.seed} | "
        f"{run.record.source} | {run.record.provenance.date[:10]} |"
        for run in runs
    )
    more = "\n  `checkpoints/model.ckpt` is the generator, for `python run.py sample`." if checkpoints else ""
    return README.format(title=TITLE, count=_count(runs), rows=rows, checkpoints=more)


def croissant(runs: tuple[Run, ...], frame: pd.DataFrame, digests: Mapping[str, str]) -> str:
    """The description of the files and of the table of results, as JSON-LD."""
    names = [name for name in sorted(digests) if name.endswith(tuple(FORMATS))]
    datasets = sorted({run.record.dataset for run in runs})
    models = sorted({run.name for run in runs if not run.control})
    content = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": "paragon-results",
        "description": f"{TITLE}. {_count(runs)}; models: {', '.join(models)}; datasets: {', '.join(datasets)}.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": LICENCE,
        "citeAs": CITATION,
        "version": "1.0.0",
        "datePublished": max(run.record.provenance.date for run in runs)[:10],
        "distribution": [_file(name, digests[name]) for name in names],
        "recordSet": [_records(frame)],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _file(name: str, digest: str) -> dict[str, Any]:
    ending = name[name.rindex(".") :]
    return {
        "@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name, "encodingFormat": FORMATS[ending],
        "sha256": digest,
    }  # fmt: skip


def _records(frame: pd.DataFrame) -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field", "@id": f"results/{name}", "name": f"results/{name}", "dataType": _type(frame[name]),
            "source": {"fileObject": {"@id": layout.RESULTS}, "extract": {"column": str(name)}},
        }
        for name in frame
    ]  # fmt: skip
    about = "One row per record: metrics with their intervals and conditions, likelihood, speed, cost, provenance."
    return {"@type": "cr:RecordSet", "@id": "results", "name": "results", "description": about, "field": fields}


def _type(column: pd.Series) -> str:
    if pd.api.types.is_bool_dtype(column):
        return "sc:Boolean"
    if pd.api.types.is_integer_dtype(column):
        return "sc:Integer"
    return "sc:Float" if pd.api.types.is_float_dtype(column) else "sc:Text"
