"""The one entry point: parse, plan, run cells, report. Imports no torch until a cell runs."""

from __future__ import annotations

import sys

from experiments.cli import main

if __name__ == "__main__":
    sys.exit(main())
