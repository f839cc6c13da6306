"""Ways to run the cells of a grid: one file each, found by name.

An engine is a docstring, whose first line is its line in the help, and ``run(jobs, options) ->
Iterator[tuple[Job, Outcome]]``, which lets ``experiments.jobs.perform`` do every job somewhere and
yields each with its outcome as it ends. ``check(options)``, if there is one, is called before anything
is written and raises ``UsageError``. Engines import neither torch nor their library when imported.
"""
