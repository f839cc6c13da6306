"""The command line as a user meets it: real processes, their output, exit codes and speed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evaluation.metrics.driver import all_metrics
from experiments.budgets import BUDGETS, budget_flops
from experiments.cli_options import Override, apply_overrides, split_overrides
from experiments.config import EvaluationConfig
from experiments.discovery import dataset_names, model_names

HEAVY = ("torch", "pytorch_lightning", "torchvision", "pandas", "sklearn", "scipy", "matplotlib", "seaborn")
PROBE = f"""
import sys
from experiments.cli import main
code = None
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
heavy = [name for name in {HEAVY} if name in sys.modules]
sys.exit(f"imported {{heavy}}" if heavy else code)
"""

Finished = subprocess.CompletedProcess[str]


def cli(*args: str, root: Path, program: tuple[str, ...] = ("run.py",)) -> Finished:
    """Run the command line in a new process."""
    command = [sys.executable, *program, *args]
    return subprocess.run(command, cwd=root, text=True, capture_output=True, timeout=60)


REFUSALS = [
    ("", "--model is required; allowed: "),
    ("--model difusion", "did you mean 'diffusion'?"),
    ("--model GAN", "did you mean 'gan'?"),
    ("--model", "--model: expected one argument"),
    ("--mod gan", "unknown option --mod"),
    ("--modle gan", "did you mean --model?"),
    ("--model gan --widht 4", "did you mean --model.width?"),
    ("--model gan --model.widht 4", "did you mean --model.width?"),
    ("--model gan --model.width four", "--model.width must be a whole number, not 'four'"),
    ("--model gan --model.width 4 5", "--model.width must be a whole number, not '4 5'"),
    ("--model gan --model.width", "--model.width must be a whole number, not left empty"),
    ("--model gan --model.lr nan", "--model.lr must be finite, not nan"),
    ("--model gan --model.lr=inf", "--model.lr must be finite, not inf"),
    ("--model gan --model.width 4 --model.width 8", "--model.width is given twice"),
    ("--model gan --evalution.batch_size 4", "did you mean --evaluation.batch_size?"),
    ("--model gan --evaluation.num_samples 0", "evaluation.num_samples must be at least 2, not 0"),
    ("--model gan --data digit", "did you mean 'digits'?"),
    ("--model gan --data.root x", "unknown option --data.root; allowed: none"),
    ("--model gan --budget smal", "did you mean 'small'?"),
    ("--model gan --budget nan", "nor a number of FLOPs from 1e6 to 1e24"),
    ("--model gan --budget -5", "nor a number of FLOPs from 1e6 to 1e24"),
    ("--model gan --seed -1", "--seed: must be a whole number from 0 to 4294967295, not '-1'"),
    ("--model gan --seed 1.5", "--seed: must be a whole number from 0 to 4294967295, not '1.5'"),
    ("--model gan --out run.py", "run.py is not a folder"),
    ("--model gan --out run.py/runs", "run.py is not a folder"),
    ("--model gan stray", "unexpected argument 'stray'"),
    ("--model gan --data fashion_mnist --data.root /nowhere", "/nowhere"),
    ("comapre --models gan", "did you mean 'compare'?"),
    ("compare", "--models is required"),
    ("compare --models gan vqave", "did you mean 'vqvae'?"),
    ("compare --models gan gan", "--models names gan twice"),
    ("compare --models gan --seeds 0 0", "--seeds names 0 twice"),
    ("compare --models gan --seed 0", "did you mean --seeds?"),
    ("compare --models gan --model.width 4", "--model.width belongs to one model"),
    ("report /nowhere", "/nowhere is not a folder of runs"),
    ("verify /nowhere", "/nowhere is not a folder of runs"),
    ("import nowhere.zip", "there is no archive at nowhere.zip"),
    ("list everything", "unexpected argument 'everything'"),
    ("sample nowhere.ckpt --out a.png", "there is no checkpoint at nowhere.ckpt"),
    ("sample run.py --out a.jpg", "must end in .png, .npz, .gif or .webp"),
    ("sample run.py --out a.png --n 0", "--n: must be a whole number from 1 to 1000000, not '0'"),
    ("sample run.py", "the following arguments are required: --out"),
    ("curves", "the following arguments are required: CELL"),
    ("curves /nowhere", "/nowhere is not a finished cell"),
    ("curves /nowhere --nfe 0", "--nfe: must be a whole number from 1 to 1000, not '0'"),
    ("curves /nowhere --guidance -1", "--guidance: must be a number from 0 to 100, not '-1'"),
    ("curves /nowhere --sampler heun", "did you mean --samplers?"),
    ("doctor --out run.py", "run.py is not a folder"),
]


@pytest.mark.parametrize(("line", "expected"), REFUSALS, ids=[line or "nothing" for line, _ in REFUSALS])
def test_a_refusal_is_one_sentence(line: str, expected: str, root: Path, tmp_path: Path) -> None:
    args = line.split()
    out = tmp_path / "runs"
    if "--out" not in args and args[:1] not in (["report"], ["verify"], ["list"], ["sample"], ["curves"]):
        args += ["--out", str(out)]
    done = cli(*args, root=root, program=("-c", PROBE))
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")
    assert done.stdout == ""
    assert not out.exists()


ANSWERS = [
    "--help",
    "--model diffusion --help",
    "compare --help",
    "report --help",
    "sample --help",
    "curves --help",
    "doctor --help",
    "verify --help",
    "export --help",
    "import --help",
    "list",
    "--model vqvae --dry-run",
    "compare --models diffusion vqvae gan --data fashion_mnist --seeds 0 1 2 --dry-run",
]


@pytest.mark.parametrize("line", ANSWERS)
def test_answers_without_work_import_nothing_heavy(line: str, root: Path) -> None:
    done = cli(*line.split(), root=root, program=("-c", PROBE))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("line", ["--model gan --help", "list", "--model gan --dry-run", "--model gna"])
def test_answers_without_work_take_less_than_a_second(line: str, root: Path) -> None:
    def seconds() -> float:
        start = time.perf_counter()
        cli(*line.split(), root=root)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 1


def test_list_names_everything_with_a_line_each(root: Path) -> None:
    shown = cli("list", root=root).stdout
    described = {line.split()[0] for line in shown.splitlines() if len(line.split()) > 3}
    assert described >= {*model_names(), *dataset_names(), *BUDGETS}
    for names in (", ".join(metric.names) for metric in all_metrics()):
        assert f"\n  {names} " in shown


@pytest.mark.parametrize("model", model_names())
def test_help_of_a_model_shows_its_options_and_defaults(model: str, root: Path) -> None:
    shown = cli("--model", model, "--data", "fashion_mnist", "--help", root=root).stdout
    for option in ("--model.width", "--data.root", "--evaluation.num_samples", "--dry-run", "10000"):
        assert option in shown


def plan(line: str, root: Path) -> dict:
    """What --dry-run prints."""
    return json.loads(cli(*line.split(), "--dry-run", root=root).stdout)


def test_dry_run_shows_the_resolved_cell(root: Path, tmp_path: Path) -> None:
    line = "--seed 3 --model.width 32 --model gan --model.lr=2e-3 --evaluation.batch-size 7 --out "
    shown = plan(line + str(tmp_path / "r"), root)
    (cell,) = shown["cells"]
    assert shown["out"] == str(tmp_path / "r") and not (tmp_path / "r").exists()
    assert (cell["model"], cell["dataset"], cell["seed"]) == ("gan", "digits", 3)
    assert cell["budget"] == budget_flops("small")
    assert (cell["model_config"]["width"], cell["model_config"]["lr"]) == (32, 2e-3)
    assert cell["evaluation"]["batch_size"] == 7


def test_dry_run_of_a_grid_pairs_models_by_seed(root: Path) -> None:
    cells = plan("compare --models gan vqvae --seeds 4 5 --data fashion_mnist --budget 1e12", root)["cells"]
    assert [(c["seed"], c["model"]) for c in cells] == [(4, "gan"), (4, "vqvae"), (5, "gan"), (5, "vqvae")]
    assert {c["budget"] for c in cells} == {1e12}


def test_the_default_budget_depends_on_the_dataset(root: Path) -> None:
    (cell,) = plan("--model gan --data fashion_mnist", root)["cells"]
    assert cell["budget"] == budget_flops("medium")


def test_dotted_options_are_parted_from_plain_ones() -> None:
    words = ["--model", "gan", "--model.lr", "-1e-3", "--data.root=a b", "--seed", "1"]
    plain, overrides = split_overrides(words)
    assert plain == ["--model", "gan", "--seed", "1"]
    assert overrides == [Override("--model.lr", ("-1e-3",)), Override("--data.root", ("a b",))]


def test_overrides_change_a_copy() -> None:
    default = EvaluationConfig()
    changed = apply_overrides(default, "--evaluation.", [Override("--evaluation.batch_size", ("3",))])
    assert (changed.batch_size, default.batch_size) == (3, EvaluationConfig().batch_size)
    assert changed.num_samples == default.num_samples


def test_an_output_folder_that_cannot_be_made_is_refused(root: Path) -> None:
    done = cli("--model", "gan", "--out", "/proc/runs", root=root)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --out '/proc/runs' cannot be ")
    assert len(done.stderr.splitlines()) == 1


def test_a_file_that_is_no_checkpoint_is_refused(root: Path, tmp_path: Path) -> None:
    done = cli("sample", "run.py", "--out", str(tmp_path / "a.png"), root=root)
    assert done.returncode == 2
    assert "run.py" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "a.png").exists()


def test_a_reader_that_has_enough_sees_no_traceback(root: Path) -> None:
    command = [sys.executable, "run.py", "--model", "gan", "--help"]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 0
