"""The house keeps its order: who imports whom, and what a file of strategies/ or backbones/ must offer."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from derain import params, plugins
from derain.compute.hardware import Hardware
from derain.data import sets, source
from derain.data.pictures import write_png
from derain.training import masks, objective, recipe
from derain.training.micro_batches import parts_of
from derain.training.strategy import Strategy
from derain.types import ROLES, Batch, Restored
from tests.conftest import NEGATIVE_SSIM, random_batch

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "derain"

# The house, from the ground up: a part may import those below it, and itself.
FLOORS = (
    "types",
    "plugins",
    "params",
    "disk",
    "console",
    "compute",
    "data",
    "training",
    ("backbones", "objectives", "recipes", "sources", "strategies"),
    "stream",
    "evaluation",
    "web",
    "restore",
    "studies",
    "report",
    "demo",
    "commands",
    "cli",
    ("__main__", "__init__"),
)
FLOOR_OF = {
    part: number for number, floor in enumerate(FLOORS) for part in ((floor,) if isinstance(floor, str) else floor)
}
LOOSE = 7
"""Modules of no folder, at most."""


def imports(file: Path) -> set[str]:
    """The modules that a file imports, with names imported from `derain` itself."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    return imported


@pytest.mark.parametrize("file", sorted(SRC.rglob("*.py")), ids=lambda file: str(file.relative_to(SRC)))
def test_imports_follow_the_order_of_the_house(file: Path) -> None:
    part = file.relative_to(SRC).parts[0].removesuffix(".py")
    modules = imports(file)
    assert not [name for name in modules if name.split(".")[0] in {"stages", "dvc", "tests"}]
    used = {name.split(".")[1] for name in modules if name.startswith("derain.")} - {part}
    above = [name for name in used if FLOOR_OF[name] >= FLOOR_OF[part]]
    assert not above, f"{part} imports from a floor that is not below it"


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [
        *project["dependencies"],
        *(name for names in project["optional-dependencies"].values() for name in names),
    ]
    names = {re.split(r"[\[<>=~]", requirement)[0].lower() for requirement in declared}
    own = ("stages", "experiments", "benchmarks", "torture")
    files = [file for folder in (SRC, *(ROOT / name for name in own)) for file in folder.rglob("*.py")]
    modules = {name.split(".")[0] for file in files for name in imports(file)} - sys.stdlib_module_names
    distributions = packages_distributions()
    undeclared = {name for name in modules - {"derain", *own} if names.isdisjoint(map(str.lower, distributions[name]))}
    assert not undeclared


def test_few_modules_lie_loose() -> None:
    assert len(list(SRC.glob("*.py"))) <= LOOSE


def test_no_strategy_knows_another_and_the_loop_knows_none_by_import() -> None:
    for file in (SRC / "strategies").glob("[!_]*.py"):
        others = {name.split(".")[2] for name in imports(file) if name.startswith("derain.strategies.")}
        assert others <= {"_base"}
    for file in (SRC / "training").glob("*.py"):
        plugins = {
            name.split(".")[2] for name in imports(file) if name.startswith(("derain.strategies.", "derain.backbones."))
        }
        assert plugins <= {"_base"}


@pytest.mark.parametrize("name", plugins.names("strategies"))
def test_every_strategy_keeps_its_contract(name: str, hardware: Hardware) -> None:
    module = plugins.load("strategies", name)
    demo = params.load(ROOT / "params.yaml")
    section = demo.model_copy(update={"strategy": name}).section("strategies")
    assert isinstance(section, params.Section)
    network = torch.nn.Conv2d(3, 3, 3, padding=1)
    strategy = module.Strategy(section, masks.nothing_consolidated(network), hardware, {}, NEGATIVE_SSIM)
    assert isinstance(strategy, Strategy)
    batch = Batch(*random_batch(0))
    strategy.before_task(_Backbone(network))
    for loss in strategy.extra_losses(batch, Restored(network(batch.rainy))).values():
        assert loss.shape == ()
    assert strategy.penalties(_Backbone(network)) == {}, "no task before, no penalty"
    assert strategy.join(batch, np.random.default_rng(0)) is batch
    assert module.__doc__


class _Backbone(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, rainy: torch.Tensor) -> Restored:
        return Restored(self.layer(rainy))


@pytest.mark.parametrize("name", plugins.names("backbones"))
@pytest.mark.parametrize("size", [(16, 16), (17, 31)])
def test_every_backbone_keeps_its_contract(name: str, size: tuple[int, int]) -> None:
    module = plugins.load("backbones", name)
    section = params.load(ROOT / "params.yaml").model_copy(update={"backbone": name}).section("backbones")
    torch.manual_seed(0)
    network = module.build(section)
    rainy = torch.rand(2, 3, *size)
    restored = network(rainy)
    assert restored.derained.shape == rainy.shape
    assert torch.equal(restored.derained, network(rainy).derained), "the same input twice gives the same output"
    assert restored.derained.requires_grad
    torch.manual_seed(0)
    again = module.build(section)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert module.__doc__


@pytest.mark.parametrize("name", plugins.names("objectives"))
def test_every_objective_keeps_its_contract(name: str) -> None:
    module = plugins.load("objectives", name)
    section = params.load(ROOT / "params.yaml").model_copy(update={"objective": name}).section("objectives")
    made = module.Objective(section)
    assert isinstance(made, objective.Objective)
    batch = Batch(*random_batch(0))
    distance = made.distance(batch.rainy, batch.clean)
    assert distance.shape == ()
    assert made.distance(batch.clean, batch.clean) < distance, "nearer is less"
    halves = [made.distance(part.rainy, part.clean) * part.share for part in parts_of(batch, 1)]
    assert sum(halves) == pytest.approx(float(distance), abs=1e-6), "a mean over samples"
    restored = Restored(batch.rainy.clone().requires_grad_())
    losses = made.losses(batch, restored, lambda rainy: Restored(rainy))
    assert losses
    assert all(loss.shape == () and loss.requires_grad for loss in losses.values())
    again = module.Objective(section)
    again.load_state_dict(made.state_dict())
    assert module.__doc__


@pytest.mark.parametrize("name", plugins.names("recipes"))
def test_every_recipe_keeps_its_contract(name: str) -> None:
    module = plugins.load("recipes", name)
    section = params.load(ROOT / "params.yaml").model_copy(update={"recipe": name}).section("recipes")
    made = module.Recipe(section, 0.01, 10, 3)
    assert isinstance(made, recipe.Recipe)
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = made.optimizer([weight], fused=False)
    schedule = made.schedule(optimizer)
    rates = []
    for _ in range(30):
        weight.grad = torch.ones(2)
        optimizer.step()
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    assert max(rates) == pytest.approx(0.01), "train.lr is the largest"
    assert bool((weight < 1).all())
    assert module.__doc__


@pytest.mark.parametrize("name", plugins.names("sources"))
def test_every_source_keeps_its_contract(name: str, tmp_path: Path) -> None:
    module = plugins.load("sources", name)
    assert module.__doc__
    assert issubclass(module.Params, params.Section)
    for side in ("rainy", "clean"):
        for number in (1, 2):
            picture = np.full((20, 30, 3), number * 10 + len(side), np.uint8)
            write_png(tmp_path / "RainTrainL" / f"{'no' * (side == 'clean')}rain-{number}.png", picture)
            write_png(tmp_path / "mine" / side / f"{number}.png", picture)
    folders = {"rainy": str(tmp_path / "mine/rainy"), "clean": str(tmp_path / "mine/clean")}
    entries: dict[str, dict[str, Any]] = {
        "rendered": {"kind": "light"},
        "benchmark": {"set": "Rain100L", "folder": str(tmp_path)},
        "pairs": {"train": folders},
        "mix": {"of": [{"source": "pairs", "train": folders}, {"source": "pairs", "train": folders}]},
    }
    data = params.load(ROOT / "params.yaml").data
    made = sets.source_of({"source": name, **entries[name]}, "params.yaml: datasets.x", data, 0)
    assert isinstance(made, source.Source)
    made.check("params.yaml: datasets.x")
    assert set(made.roles) <= set(ROLES)
    pair = next(iter(made.split("train").pairs))
    assert pair.rainy.dtype == pair.clean.dtype == np.uint8
    assert pair.rainy.shape == pair.clean.shape


def test_a_backbone_that_says_nothing_of_coupled_samples_has_none() -> None:
    for name in plugins.names("backbones"):
        section = params.load(ROOT / "params.yaml").model_copy(update={"backbone": name}).section("backbones")
        torch.manual_seed(0)
        network = plugins.load("backbones", name).build(section).train()
        rainy = torch.rand(2, 3, 16, 16)
        together = network(rainy).derained
        apart = torch.cat([network(one[None]).derained for one in rainy])
        assert getattr(network, "samples_coupled", False) or torch.allclose(together, apart, atol=1e-5)


# Reading parameters, naming files, printing and keeping states change no result; plugins are named in dvc.yaml by what
# is selected.
WITHOUT_RESULT = {
    "derain",
    "derain.types",
    "derain.params",
    "derain.plugins",
    "derain.console",
    "stages",
}
SCRIPTS = {"sc_mask0": "sc_mask"}


def modules_of(file: Path, files: set[Path]) -> set[Path]:
    """The project's files that a script imports, directly or not, added to `files`."""
    for name in imports(file):
        parts = name.split(".")
        root = ROOT / "src" if parts[0] == "derain" else ROOT
        for length in range(2, len(parts) + 1):
            module = root.joinpath(*parts[:length])
            if parts[0] not in {"derain", "stages"} or ".".join(parts[:length]) in WITHOUT_RESULT:
                continue
            for path in (module.with_suffix(".py"), module / "__init__.py"):
                if path.exists() and path not in files:
                    files.add(path)
                    modules_of(path, files)
    return files


@pytest.mark.parametrize("stage", ["download", "train_task0", "sc_mask0", "kd_task", "sc_mask", "eval", "report"])
def test_a_stage_depends_on_all_code_that_makes_its_result(stage: str) -> None:
    definition = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    declared = [ROOT / name for name in definition.get("do", definition)["deps"]]
    script = ROOT / "stages" / f"{SCRIPTS.get(stage, stage)}.py"
    for file in {script, *modules_of(script, set())}:
        covered = any(file == entry or entry in file.parents for entry in declared)
        only_docstring = len(ast.parse(file.read_text()).body) <= 1
        assert covered or only_docstring, file.relative_to(ROOT)
