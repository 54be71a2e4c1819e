"""Plug-ins of all five kinds, as the docs' recipes have them, each thrown away after the test."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from derain import params as parameters
from derain import plugins
from derain.compute import distributed
from derain.compute.batch import Batch
from derain.compute.hardware import Hardware
from derain.data import sets
from derain.data.pack import Pack, write_pack
from derain.disk import artifacts, networks, paths
from derain.params import Params, Start, read_entry
from derain.stream import Carried, check, consolidate_task, learn_stream, learn_task
from derain.training import crops, cuda_graphs
from derain.training.crops import Packs
from derain.training.importance import mean_absolute_gradient
from derain.training.micro_batches import MicroBatches, parts_of
from derain.training.resume import KeptState
from derain.types import DataError, ParamsError
from stages import _task, kd_task, sc_mask
from tests.conftest import NEGATIVE_SSIM, ROOT, noisy_pairs, random_batch
from tests.test_states import Dying, KilledError

SECTIONS: dict[str, dict[str, Any]] = {
    "normalized": {"channels": 4},
    "banked": {"channels": 4, "unlabelled": 1},
    "decayed": {"decay": 0.1},
    "averaged": {"share": 0.3},
}
ALL = {"backbone": "normalized", "objective": "banked", "recipe": "decayed", "strategy": "averaged"}
CASES = {
    "a backbone": {"backbone": "normalized"},
    "a backbone, fine-tuned": {"backbone": "normalized", "strategy": "si"},
    "a recipe": {"recipe": "decayed"},
    "a strategy": {"strategy": "averaged"},
    "an objective": {"backbone": "normalized", "objective": "banked"},
    "all": ALL,
}
each_case = pytest.mark.parametrize("selected", CASES.values(), ids=CASES)


@pytest.fixture(autouse=True)
def thrown_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The files of tests/plugins as files of the project's own folders."""
    for kind in plugins.KEYS:
        package = importlib.import_module(f"derain.{kind}")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(ROOT / "tests/plugins" / kind)])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[:2] in [["derain", kind] for kind in plugins.KEYS]:
            del sys.modules[name]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Packs]:
    """The packs of the demo's sets by role, in the folder of the test: rainy pictures without clean ones too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path / "cache"))
    for number, name in enumerate(("heavy", "medium", "varied", "light")):
        write_pack(paths.DATA / name, "train", noisy_pairs(seed=number, noise=60 // (number + 1)))
        rainy = [pair._replace(clean=pair.rainy) for pair in noisy_pairs(seed=number + 9, noise=40)]
        write_pack(paths.DATA / name, "unlabelled", rainy)
    return {
        name: {role: Pack.open(paths.DATA / name, role) for role in ("train", "unlabelled")}
        for name in ("heavy", "medium", "varied", "light")
    }


def selecting(params: Params, selected: Mapping[str, str]) -> Params:
    return params.model_copy(update={"sections": params.sections | SECTIONS, **selected})


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@each_case
def test_the_pipeline_equals_one_process(
    selected: dict[str, str], tiny_params: Params, hardware: Hardware, data: dict[str, Packs]
) -> None:
    params = selecting(tiny_params, selected)
    content = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"device": "cpu", "precision": "fp32", "threads": 1}
    content |= params.sections | selected | {"train": params.train.model_dump() | {"micro_batch": None}}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    _task.write_start(params)
    for task, carried in learn_stream(params, data.__getitem__, hardware):
        kd_task.main(task.key)
        sc_mask.main(task.key)
        weights, objective = networks.parts_of(artifacts.load(paths.model(task.name))[0])
        assert same(carried.weights, weights)
        assert same(carried.objective, objective)
        assert same(carried.mask, artifacts.load(paths.mask(task.name))[0])
        assert same(carried.memory, artifacts.load(paths.memory(task.name))[0])


@each_case
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_interrupted_equals_uninterrupted(
    steps: int,
    selected: dict[str, str],
    tiny_params: Params,
    hardware: Hardware,
    data: dict[str, Packs],
    tmp_path: Path,
) -> None:
    params = selecting(tiny_params, selected)
    first, task = params.tasks[:2]
    before = consolidate_task(
        params, first, data["heavy"], hardware, learn_task(params, first, data["heavy"], hardware, None)
    )
    whole = learn_task(params, task, data["medium"], hardware, before)
    with pytest.raises(KilledError):
        learn_task(params, task, data["medium"], hardware, before, Dying(tmp_path, steps))
    continued = learn_task(params, task, data["medium"], hardware, before, KeptState(tmp_path))
    assert whole.history == continued.history
    for part in ("weights", "objective", "own", "trace"):
        assert same(getattr(whole, part), getattr(continued, part)), part


@pytest.mark.parametrize("strategy", ["nr", "packnet", "averaged"])
def test_consolidated_weights_keep_their_bits_under_weight_decay_and_statistics_are_held(
    strategy: str, tiny_params: Params, hardware: Hardware, data: dict[str, Packs]
) -> None:
    params = selecting(tiny_params, {"backbone": "normalized", "recipe": "decayed", "strategy": strategy})
    stream = [carried for _, carried in learn_stream(params, data.__getitem__, hardware)]
    for before, after in itertools.pairwise(stream):
        assert sum(int(part.sum()) for part in before.mask.values()) > 0
        for name, held in before.mask.items():
            assert torch.equal(before.weights[name][held], after.weights[name][held]), name
        assert any(not torch.equal(before.weights[name], after.weights[name]) for name in before.mask)
        for name in before.weights.keys() - before.mask.keys():
            assert torch.equal(before.weights[name], after.weights[name]), f"{name} moved"


def test_without_consolidation_statistics_follow_the_data(
    tiny_params: Params, hardware: Hardware, data: dict[str, Packs]
) -> None:
    params = selecting(tiny_params, {"backbone": "normalized", "strategy": "si"})
    first, second, *_ = [carried for _, carried in learn_stream(params, data.__getitem__, hardware)]
    assert not torch.equal(first.weights["features.1.running_mean"], second.weights["features.1.running_mean"])
    sections = params.sections | {"nr": params.sections["nr"] | {"consolidate": False, "lambda_kd": 0}}
    neither = params.model_copy(update={"strategy": "nr", "sections": sections})
    *_, (_, last) = learn_stream(neither, data.__getitem__, hardware)
    *_, (_, fine_tuned) = learn_stream(params, data.__getitem__, hardware)
    assert same(last.weights, fine_tuned.weights), "NR with neither part is fine-tuning, buffers and all"


def network_of(params: Params) -> torch.nn.Module:
    torch.manual_seed(0)
    return networks.build_network("normalized", selecting(params, {"backbone": "normalized"}).section("backbones"))


def test_importance_is_measured_in_evaluation_and_moves_nothing(
    tiny_params: Params, hardware: Hardware, data: dict[str, Packs]
) -> None:
    network = network_of(tiny_params).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    samples = crops.for_importance(data["heavy"]["train"], 16, 0, 0, 4, 1, hardware.device)
    omega = mean_absolute_gradient(network, samples, hardware, NEGATIVE_SSIM)
    assert same(before, network.state_dict())
    assert network.training
    expected = mean_absolute_gradient(network.eval(), samples, hardware, NEGATIVE_SSIM)
    assert same(omega, expected)


def test_what_is_carried_is_the_network_as_it_was_learned(
    tiny_params: Params, hardware: Hardware, data: dict[str, Packs]
) -> None:
    params = selecting(tiny_params, {"backbone": "normalized"})
    learned = learn_task(params, params.tasks[0], data["heavy"], hardware, None)
    carried = consolidate_task(params, params.tasks[0], data["heavy"], hardware, learned)
    assert same(learned.weights, carried.weights)


def test_coupled_samples_are_never_split_nor_captured_nor_mapped(
    tiny_params: Params, hardware: Hardware, data: dict[str, Packs], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(tiny_params)
    with pytest.raises(ParamsError, match=r"train\.micro_batch: 2 .*coupled"):
        cuda_graphs.micro_batches(2, network, NEGATIVE_SSIM, hardware)
    parts = cuda_graphs.micro_batches(None, network, NEGATIVE_SSIM, hardware)
    large = torch.empty(3, 3, 400, 400)
    assert len(parts.within_memory(Batch(large, large), next).rainy) == 3

    def exhaust(_: Iterator[Batch]) -> None:
        raise MemoryError

    with pytest.raises(ParamsError, match=r"train\.batch.*coupled"):
        parts.within_memory(Batch(*random_batch(0)), exhaust)
    monkeypatch.setattr(Hardware, "is_gpu", True)
    assert type(cuda_graphs.micro_batches(None, network, NEGATIVE_SSIM, hardware)) is MicroBatches
    monkeypatch.setattr("derain.training.samples_at_once.OfEachSample", lambda *_: pytest.fail("vmapped"))
    samples = crops.for_importance(data["heavy"]["train"], 16, 0, 0, 2, 1, hardware.device)
    mean_absolute_gradient(network, samples, hardware, NEGATIVE_SSIM)


def test_several_processes_do_not_share_coupled_samples(
    tiny_params: Params, hardware: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 2)
    with pytest.raises(ParamsError, match=r"launch: .*coupled"):
        cuda_graphs.micro_batches(None, network_of(tiny_params), NEGATIVE_SSIM, hardware)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_mean_over_labelled_samples_adds_up_over_the_parts(size: int) -> None:
    labelled = torch.tensor([True, True, False, False, False])
    batch = Batch(*random_batch(0, count=5), labelled=labelled)

    def loss(part: Batch) -> torch.Tensor:
        return part.share * part.mean((part.rainy - part.clean).abs().mean((1, 2, 3)), part.labelled)

    assert sum(map(loss, parts_of(batch, size))) == pytest.approx(float(loss(batch)), rel=1e-6)
    assert float(loss(batch)) == pytest.approx(float((batch.rainy - batch.clean)[labelled].abs().mean()) * 2 / 5)


def test_validate_tells_what_cannot_be_learned(tiny_params: Params) -> None:
    params = selecting(tiny_params, ALL)
    check(params, lambda _: ("train", "unlabelled"))
    with pytest.raises(ParamsError, match=r"banked learns from rainy pictures .* 'heavy' of task0 has none"):
        check(params, lambda _: ("train",))
    split = params.train.model_copy(update={"micro_batch": 2})
    with pytest.raises(ParamsError, match=r"train\.micro_batch"):
        check(params.model_copy(update={"train": split}), lambda _: ("train", "unlabelled"))


def test_a_step_that_begins_anew_counts_no_batch_twice(tiny_params: Params) -> None:
    class Counting(torch.nn.Module):
        seen: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

        def forward(self, rainy: torch.Tensor) -> None:
            self.seen += len(rainy)
            if len(rainy) > 2:
                raise MemoryError

    network = Counting()
    parts = cuda_graphs.micro_batches(None, network, NEGATIVE_SSIM, Hardware(torch.device("cpu"), "bf16"))
    parts.within_memory(Batch(*random_batch(0, count=5)), lambda parts: [network(part.rainy) for part in parts])
    assert network.seen == 5


def test_an_objective_without_its_unlabelled_pictures_says_so(
    tiny_params: Params, hardware: Hardware, data: dict[str, Packs]
) -> None:
    params = selecting(tiny_params, ALL)
    with pytest.raises(ParamsError, match=r"banked learns from rainy pictures .* 'heavy' of task0 has none"):
        learn_task(params, params.tasks[0], {"train": data["heavy"]["train"]}, hardware, None)


def test_names_are_those_of_one_section_each() -> None:
    names = [name for kind in plugins.SELECTED for name in plugins.names(kind)]
    assert len(names) == len(set(names)), "a plug-in's section bears its name: two kinds may not share one"


HALVES = {"source": "halves", "count": 3}


def test_a_source_with_unlabelled_pictures_goes_all_the_way(
    tiny_params: Params, hardware: Hardware, tmp_path: Path
) -> None:
    """Alone and in a union with pairs: packed by role, and learned from by an objective that asks for them."""
    union = {"source": "mix", "of": [{"source": "rendered", "kind": "light"}, HALVES]}
    for name, entry, roles in (
        ("halves", HALVES, {"train", "unlabelled"}),
        ("union", union, {"train", "test", "unlabelled"}),
    ):
        sets.pack_set(name, entry, tmp_path / name, tiny_params.data, seed=0)
        assert {path.stem for path in (tmp_path / name).glob("*.pack")} == roles
        packs = {role: Pack.open(tmp_path / name, role) for role in ("train", "unlabelled")}
        for index in range(3):
            pair = packs["unlabelled"].pair(index)
            np.testing.assert_array_equal(pair.rainy, pair.clean)
        params = selecting(tiny_params, ALL)
        learned = learn_task(params, params.tasks[0], packs, hardware, None)
        assert set(learned.history[0]) == {"epoch", "lr", "supervised", "bank"}


def test_a_clean_partner_of_an_unlabelled_picture_is_refused(tiny_params: Params, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="halves: the unlabelled picture 'unlabelled0' comes with a clean one"):
        sets.pack_set("halves", {**HALVES, "gives_away": True}, tmp_path / "halves", tiny_params.data, 0)


@pytest.mark.parametrize(
    ("roles", "changes", "message"),
    [
        (("test",), {"task0": {"dataset": "x"}}, r"task0\.dataset: 'x' has no training split\. It can only be tested"),
        (
            ("unlabelled",),
            {"task0": {"dataset": "x"}},
            r"task0\.dataset: 'x' has no training split\. Its pictures have",
        ),
        (
            ("train", "unlabelled"),
            {"tests": {"x": "learned"}},
            r"tests\.x: the set has no test split\. It can only be l",
        ),
        (
            ("unlabelled",),
            {"tests": {"x": "unseen"}},
            r"tests\.x: the set has no test split\. Its pictures have no clean",
        ),
    ],
)
def test_a_set_without_the_role_that_is_asked_for_says_what_it_is_good_for(
    roles: tuple[str, ...], changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins.load("sources", "halves").Source, "roles", roles)
    content = parameters.content(ROOT / "params.yaml")
    content |= {"stream": {}, "datasets": {**content["datasets"], "x": HALVES}, **changes}
    with pytest.raises(ParamsError, match=message):
        sets.check_sets(parameters.of(content))


def test_a_wrong_part_of_a_union_is_named_where_it_stands(tiny_params: Params) -> None:
    union = {"source": "mix", "of": [HALVES, {"source": "mix", "of": [{"source": "rendered", "kind": "snow"}]}]}
    made = sets.source_of(union, "params.yaml: datasets.both", tiny_params.data, 0)
    with pytest.raises(ParamsError, match=r"datasets\.both\.of\.1\.of\.0\.kind: 'snow'"):
        made.check("params.yaml: datasets.both")
    with pytest.raises(ParamsError, match=r"datasets\.both\.of\.0\.source: no file sources/nope\.py"):
        read_entry({"source": "mix", "of": [{"source": "nope"}]}, "params.yaml: datasets.both")


def test_the_code_of_a_set_is_that_of_all_its_sources() -> None:
    union = {"source": "mix", "of": [HALVES, {"source": "mix", "of": [{"source": "rendered", "kind": "light"}]}]}
    assert set(sets.code_of(union)) == {"mix", "halves", "rendered"}
    assert set(sets.code_of(HALVES)) == {"halves"}


class TestStart:
    """A stream that starts from weights that exist."""

    @pytest.fixture
    def deployed(self, tiny_params: Params, hardware: Hardware, data: dict[str, Packs]) -> Carried:
        """A network in service, written to files with its mask."""
        _, carried = next(learn_stream(tiny_params, data.__getitem__, hardware))
        section = tiny_params.section("backbones")
        networks.save_network(Path("deployed.safetensors"), carried.weights, "prenet", section, {"kind": "model"})
        artifacts.save(Path("mask.safetensors"), carried.mask, {"kind": "mask"})
        return carried

    @staticmethod
    def starting(params: Params, start: str | dict[str, str] | None) -> Params:
        files = {"model": start} if isinstance(start, str) else start
        return params.model_copy(update={"start": None if files is None else Start(**files)})

    def test_its_mask_holds_from_the_first_task_on_and_it_is_the_teacher(
        self, deployed: Carried, tiny_params: Params, hardware: Hardware, data: dict[str, Packs]
    ) -> None:
        files = {"model": "deployed.safetensors", "mask": "mask.safetensors"}
        _, first = next(learn_stream(self.starting(tiny_params, start=files), data.__getitem__, hardware))
        assert "distillation" in first.history[0]
        for name, held in deployed.mask.items():
            assert torch.equal(deployed.weights[name][held], first.weights[name][held])
            assert bool((first.mask[name] | ~held).all())

    def test_without_a_mask_it_is_where_training_begins(
        self, deployed: Carried, tiny_params: Params, hardware: Hardware, data: dict[str, Packs]
    ) -> None:
        params = self.starting(tiny_params, start="deployed.safetensors").model_copy(update={"strategy": "si"})
        _, first = next(learn_stream(params, data.__getitem__, hardware))
        again = learn_task(params, params.tasks[0], data["heavy"], hardware, Carried(deployed.weights, first.mask))
        assert same(first.weights, again.weights)

    @pytest.mark.usefixtures("deployed")
    def test_a_mask_needs_a_strategy_that_holds_it(
        self, tiny_params: Params, hardware: Hardware, data: dict[str, Packs]
    ) -> None:
        files = {"model": "deployed.safetensors", "mask": "mask.safetensors"}
        params = self.starting(tiny_params, files).model_copy(update={"strategy": "ewc"})
        with pytest.raises(ParamsError, match=r"start\.mask: the strategy ewc holds no weights"):
            next(learn_stream(params, data.__getitem__, hardware))

    def test_the_strategy_decides_the_first_task_only_where_there_is_something_to_keep(
        self, deployed: Carried, tiny_params: Params
    ) -> None:
        def written(strategy: str, start: str | None) -> bytes:
            params = self.starting(tiny_params, start=start).model_copy(update={"strategy": strategy})
            _task.write_start(params)
            return paths.START.read_bytes()

        assert written("nr", None) == written("si", None)
        assert written("nr", "deployed.safetensors") != written("si", "deployed.safetensors")

    @pytest.mark.parametrize(
        ("start", "told"),
        [
            ("nothing.safetensors", "nothing.safetensors is missing"),
            ("mask.safetensors", "mask.safetensors holds no network"),
            ("torn.safetensors", "torn.safetensors is damaged"),
            ("other.safetensors", r"other.safetensors belongs to another network: prenet .*channels=5"),
            ("deeper.safetensors", r"deeper.safetensors belongs to another network: prenet .*stages=3"),
            ({"model": "deployed.safetensors", "mask": "deployed.safetensors"}, "is no mask"),
        ],
    )
    def test_bad_files_get_one_line(
        self, start: Any, told: str, deployed: Carried, tiny_params: Params, hardware: Hardware, data: dict[str, Packs]
    ) -> None:
        del deployed
        Path("torn.safetensors").write_bytes(Path("deployed.safetensors").read_bytes()[:900])
        other = plugins.load("backbones", "prenet").Params(channels=5, stages=2, blocks=1)
        weights = networks.build_network("prenet", other).state_dict()
        networks.save_network(Path("other.safetensors"), weights, "prenet", other, {"kind": "model"})
        own = tiny_params.section("backbones")
        deeper = own.model_copy(update={"stages": own.stages + 1})  # the same shapes, another function
        weights = networks.build_network("prenet", deeper).state_dict()
        networks.save_network(Path("deeper.safetensors"), weights, "prenet", deeper, {"kind": "model"})
        with pytest.raises(Exception, match=told) as raised:
            next(learn_stream(self.starting(tiny_params, start=start), data.__getitem__, hardware))
        assert "\n" not in str(raised.value)
