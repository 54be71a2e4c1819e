"""Pictures of any size: tiles give what the whole picture gives, in bounded memory."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import derain
from derain.backbones.prenet import Params, PReNet
from derain.compute.forward import estimate, forward
from derain.compute.hardware import Hardware
from derain.compute.sides import mirrored_to
from derain.disk import networks
from derain.evaluation.quality import to_8_bit
from derain.restore import tiles
from derain.restore.network import Network, _Torch
from derain.restore.probe import receptive_radius, taken
from derain.types import DataError, NumericError, ParamsError, Restored

CPU = Hardware(torch.device("cpu"), "fp32")


def prenet(channels: int = 4, stages: int = 2, blocks: int = 1, seed: int = 0) -> PReNet:
    torch.manual_seed(seed)
    return PReNet(channels, stages, blocks).eval().requires_grad_(False)


class Sees:
    """A `Forward` of a torch network, as an exported one would be: it tells its radius, and counts what it is given."""

    def __init__(self, network: nn.Module, radius: int | None, hardware: Hardware = CPU) -> None:
        self.network, self.receptive_radius, self.hardware = network, radius, hardware
        self.given: list[tuple[int, ...]] = []

    def describe(self) -> dict[str, str | int]:
        return {}

    def __call__(self, batch: np.ndarray, /) -> np.ndarray:
        self.given.append(batch.shape)
        return forward(self.network, batch, self.hardware)


class Strides(nn.Module):
    """A network that halves the picture three times, and works on any size as such networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Conv2d(3 if i == 0 else 4, 4, 3, stride=2, padding=1) for i in range(3))
        self.up = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, rainy: Tensor) -> Restored:
        height, width = rainy.shape[2:]
        features = F.pad(rainy, (0, -width % 8, 0, -height % 8), mode="replicate")
        for layer in self.down:
            features = F.relu(layer(features))
        return Restored(rainy + self.up(F.interpolate(features, scale_factor=8.0))[..., :height, :width])


class Globally(nn.Module):
    """Everything depends on everything, weakly."""

    def forward(self, rainy: Tensor) -> Restored:
        return Restored(rainy - 0.2 * rainy.mean(dim=(2, 3), keepdim=True))


class Swallows(nn.Module):
    """Like kernels fused for inference: max(NaN, 0) = 0."""

    def forward(self, rainy: Tensor) -> Restored:
        return Restored(F.avg_pool2d(torch.nan_to_num(rainy), 5, stride=1, padding=2))


class Echo(nn.Module):
    """The rainy picture, or a constant in its place; fails on more pixels than it is allowed."""

    def __init__(self, most: int = sys.maxsize, error: Exception | None = None, offset: float = 0) -> None:
        super().__init__()
        self.most, self.error, self.offset = most, error, offset

    def forward(self, rainy: Tensor) -> Restored:
        if rainy[0, 0].numel() > self.most:
            assert self.error is not None
            raise self.error
        return Restored(rainy + self.offset)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


class TestRadius:
    @pytest.mark.parametrize(("stages", "blocks"), [(1, 1), (2, 3), (4, 5), (6, 5)])
    def test_it_is_what_the_layers_of_prenet_add_up_to(self, stages: int, blocks: int) -> None:
        # A stage: one convolution of 3x3 in front, one for the gates, two a block, one behind.
        assert receptive_radius(prenet(3, stages, blocks)) == stages * (1 + 1 + 2 * blocks + 1)

    def test_it_does_not_depend_on_the_weights(self) -> None:
        network = prenet(3, 2, 2)
        for parameter in network.parameters():
            parameter.zero_()
        assert receptive_radius(network) == 14

    def test_with_strides_it_is_that_of_the_pixel_that_reaches_farthest(self) -> None:
        radius = receptive_radius(Strides().eval())
        assert radius is not None
        rainy = torch.rand(1, 3, 128, 128)
        network = Strides().eval()
        reached = []
        for pixel in range(48, 64):
            given = rainy.clone()
            given[..., pixel, pixel] = torch.nan
            rows = torch.nonzero(network(given).derained.isnan())[:, 2]
            reached += [48 - int(rows.min()), int(rows.max()) - 63]
        assert radius == max(reached)

    def test_a_network_that_sees_everything_has_none(self) -> None:
        assert receptive_radius(Globally()) is None

    def test_a_network_that_sees_its_own_pixel_only_has_zero(self) -> None:
        assert receptive_radius(Echo()) == 0

    def test_kernels_that_swallow_nan_are_seen_through(self) -> None:
        assert receptive_radius(Swallows()) == 2

    def test_no_probe_is_larger_than_allowed(self) -> None:
        assert receptive_radius(prenet(3, 4, 5), fits=lambda pixels: pixels <= 64**2) is None


SIZES = [(1, 1), (1, 67), (97, 1), (2, 3), (31, 37), (53, 101), (64, 64), (89, 48), (127, 71), (113, 16)]
TILES: list[tuple[int, int | None]] = [(1, None), (7, None), (16, None), (29, 13), (48, 10), (200, None)]


class TestTiles:
    @pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
    @pytest.mark.parametrize(("tile", "overlap"), TILES)
    def test_any_size_in_any_tiles_is_what_the_whole_picture_gives(
        self, size: tuple[int, int], tile: int, overlap: int | None
    ) -> None:
        # One stage of one block sees 5 pixels far; the smallest tiles are tried on a part, which is as telling.
        height, width = (min(side, 4 * tile + 3) for side in size)
        rainy = picture(height, width)
        network = Sees(prenet(stages=1), 5)
        tiled = Network(network, tile=tile, overlap=overlap).restore(rainy)
        whole = Network(network, tile=max(size)).restore(rainy)
        assert whole.shape == tiled.shape == rainy.shape
        np.testing.assert_allclose(tiled, whole, atol=2e-6)

    def test_one_pixel_less_than_the_radius_shows(self) -> None:
        rainy = picture(96, 80)
        whole = Network(Sees(Swallows(), 2), tile=96).restore(rainy)

        def difference(radius: int) -> float:
            # Where 16 - 2 radius is the core, tiles end on the grid, and see no more than is asked for.
            return float(np.abs(Network(Sees(Swallows(), radius), tile=16 - 2 * radius).restore(rainy) - whole).max())

        assert difference(2) < 1e-6
        assert difference(1) > 1e-2

    def test_in_bf16_too(self) -> None:
        bf16 = Hardware(torch.device("cpu"), "bf16")
        network = Sees(prenet(8, 3, 2), 21, bf16)
        rainy = picture(101, 143)
        whole = Network(network, tile=143).restore(rainy)
        np.testing.assert_allclose(Network(network, tile=40).restore(rainy), whole, atol=1 / 255)

    def test_a_network_with_strides_keeps_its_phase(self) -> None:
        torch.manual_seed(0)
        network = Strides().eval().requires_grad_(False)
        radius = receptive_radius(network)
        rainy = picture(131, 203)
        whole = Network(Sees(network, radius), tile=203).restore(rainy)
        for tile in (16, 40, 97):
            np.testing.assert_allclose(Network(Sees(network, radius), tile=tile).restore(rainy), whole, atol=2e-6)

    @pytest.mark.parametrize("overlap", [0, 1, 8, 64])
    def test_weights_sum_to_one_everywhere(self, overlap: int) -> None:
        for length, core, ramp in itertools.product((1, 50, 131), (1, 16, 37), {0, overlap}):
            total = np.zeros(length)
            for span in tiles.spans(length, core, tiles.Reach(overlap, ramp)):
                assert span.seen.start <= span.used.start < span.used.stop <= span.seen.stop
                assert span.weights.min() >= 0
                total[span.used] += span.weights
            np.testing.assert_allclose(total, 1, atol=1e-6)

    def test_where_no_overlap_is_enough_there_is_no_seam(self) -> None:
        ramp = np.linspace(0.2, 0.8, 256, dtype=np.float32)
        rainy = np.broadcast_to(ramp[None, :, None], (64, 256, 3)).copy()

        def steps(overlap: int) -> float:
            derained = Network(Sees(Globally(), None), tile=64, overlap=overlap).restore(rainy)
            return float(np.abs(np.diff(derained, axis=1)).max())

        assert steps(0) > 0.02, "cores side by side show where a tile ends"
        assert steps(32) < 0.005

    def test_the_cores_are_those_of_the_fewest_computed_pixels(self) -> None:
        reach = tiles.Reach(52, 0)

        def computed(core: tiles.Core) -> int:
            return int(
                np.prod(
                    [
                        sum(span.seen.stop - span.seen.start for span in spans)
                        for spans in (tiles.spans(700, core.height, reach), tiles.spans(900, core.width, reach))
                    ]
                )
            )

        def takes(core: tiles.Core) -> float:
            return tiles.memory(700, 900, core, reach, tiles.Taken(1000))

        most = 150e6
        core = tiles.fit(700, 900, reach, tiles.Taken(1000), most)
        assert core is not None
        assert takes(core) <= most
        sides = range(16, 912, 16)
        best = min(computed(tiles.Core(h, w)) for h in sides for w in sides if takes(tiles.Core(h, w)) <= most)
        assert computed(core) <= 1.05 * best
        assert tiles.fit(700, 900, reach, tiles.Taken(1000), 1e6) is None


class TestMemory:
    def test_the_count_is_that_of_the_tensors_that_live_at_once(self) -> None:
        class Chain(nn.Module):
            def forward(self, rainy: Tensor) -> Restored:
                wide = rainy.repeat(1, 8, 1, 1)  # 24 channels of 4 bytes
                wide = wide + 1  # the old and the new at once
                return Restored(wide[:, :3])

        assert taken(Chain(), CPU) == (2 * 24 * 4, 0)

    def test_bf16_takes_about_half(self) -> None:
        network = prenet(16, 3, 2)
        ratio = taken(network, Hardware(torch.device("cpu"), "bf16")).pixel / taken(network, CPU).pixel
        assert 0.4 < ratio < 0.7

    def test_global_attention_takes_more_for_each_pixel_of_a_larger_picture(self) -> None:
        class Attention(nn.Module):
            def forward(self, rainy: Tensor) -> Restored:
                pixels = rainy[:, :1, ::4, ::4].flatten(1)  # a sixteenth of them: side by side, 4 bytes a pair
                return Restored(rainy * (pixels[:, :, None] * pixels[:, None, :]).mean())

        bytes_ = taken(Attention(), CPU)
        for side in (64, 128, 256):
            pairs = (side // 4) ** 4
            assert bytes_(side**2) == pytest.approx(4 * pairs + 12 * side**2, rel=0.05)

    def test_tiles_are_as_large_as_the_bound_allows(self) -> None:
        network = Sees(Echo(), 10)
        rainy = picture(300, 400)
        limit = 4096 * 100**2 + rainy.nbytes
        np.testing.assert_array_equal(Network(network, max_memory=limit).restore(rainy), rainy)
        seen = [height * width for _, _, height, width in network.given]
        assert 60**2 < max(seen) < 100**2

    def test_a_picture_that_fits_is_restored_whole_and_the_radius_not_asked_for(self) -> None:
        class Unasked(Sees):
            @property
            def receptive_radius(self) -> int:  # type: ignore[override]
                raise AssertionError

            @receptive_radius.setter
            def receptive_radius(self, _: Any) -> None: ...

        network = Unasked(Echo(), None)
        Network(network).restore(picture(50, 40))
        assert network.given == [(1, 3, 50, 40)]

    def test_a_bound_that_no_tile_keeps_says_what_would_do(self) -> None:
        rainy = picture(300, 400)
        network = Sees(Echo(), 30)
        with pytest.raises(DataError, match=r"400x300 pixels take \d+ MB in the smallest tiles") as raised:
            Network(network, max_memory=2_000_000).restore(rainy)
        enough = int(str(raised.value).split(" MB")[0].split()[-1])
        Network(network, max_memory=(enough + 1) * 1_000_000).restore(rainy)

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory"),
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
            MemoryError(),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_out_of_memory_halves_the_tiles_and_the_result_is_still_right(self, error: Exception) -> None:
        rainy = picture(150, 170)
        network = Sees(Echo(60**2, error, offset=0.01), 5)
        restorer = Network(network)
        np.testing.assert_array_equal(restorer.restore(rainy), np.clip(rainy + np.float32(0.01), 0, 1))
        failed = [height * width for _, _, height, width in network.given if height * width > 60**2]
        assert len(failed) == 3
        assert failed[0] == 150 * 170
        network.given.clear()
        restorer.restore(rainy)
        assert max(height * width for _, _, height, width in network.given) <= 60**2, "not tried in vain again"

    def test_out_of_memory_in_the_smallest_tile_says_what_to_do(self) -> None:
        with pytest.raises(DataError, match="170x150 pixels do not fit into memory, not even in the smallest tiles"):
            Network(Sees(Echo(10, MemoryError()), 5)).restore(picture(150, 170))

    def test_a_fault_of_the_program_is_not_hidden(self) -> None:
        with pytest.raises(RuntimeError, match="size mismatch"):
            Network(Sees(Echo(10, RuntimeError("size mismatch")), 5)).restore(picture(150, 170))


class TestPictures:
    def test_8_bit_pictures_are_the_pipelines_estimate_rounded(self, hardware: Hardware) -> None:
        network = prenet()
        rainy = np.random.default_rng(0).integers(0, 256, (37, 41, 3), dtype=np.uint8)
        expected = to_8_bit(estimate(network, rainy, hardware), "nearest")
        np.testing.assert_array_equal(Network(Sees(network, 10)).restore(rainy), expected)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    @pytest.mark.parametrize("grey", [False, True])
    @pytest.mark.parametrize("tile", [64, 16])
    def test_every_level_comes_back(self, dtype: Any, grey: bool, tile: int) -> None:
        if dtype == np.float32:
            levels = np.linspace(0, 1, 256 * 256, dtype=dtype).reshape(256, 256)
        else:
            levels = np.arange(256 * 256).astype(dtype).reshape(256, 256)
        rainy = levels if grey else np.stack([levels, levels[::-1], levels[:, ::-1]], axis=-1)
        derained = Network(Sees(Echo(), 0), tile=tile).restore(rainy)
        assert derained.dtype == rainy.dtype
        assert derained.flags.c_contiguous
        if dtype == np.float32:
            np.testing.assert_allclose(derained, rainy, atol=1e-7)
        else:
            np.testing.assert_array_equal(derained, rainy)

    def test_estimates_are_clamped_and_integers_rounded_to_the_nearest(self) -> None:
        rainy = np.array([[0, 1, 100, 65535]], np.uint16)
        darker = Network(Sees(Echo(offset=-0.6 / 65535), 0)).restore(rainy)
        np.testing.assert_array_equal(darker, [[0, 0, 99, 65534]])
        brighter = Network(Sees(Echo(offset=0.5), 0)).restore(rainy.astype(np.float32) / 65535)
        assert brighter.max() == 1

    def test_grey_is_three_equal_channels_to_the_network_and_their_mean_comes_back(self) -> None:
        class Tints(nn.Module):
            def forward(self, rainy: Tensor) -> Restored:
                assert torch.equal(rainy[:, 0], rainy[:, 2])
                return Restored(rainy + torch.tensor([0.0, 0.1, 0.2])[None, :, None, None])

        derained = Network(Sees(Tints(), 0)).restore(np.full((4, 5), 0.25, np.float32))
        np.testing.assert_allclose(derained, np.full((4, 5), 0.35), rtol=1e-6)

    @pytest.mark.parametrize(
        ("rainy", "message"),
        [
            (np.zeros((4, 4, 4), np.uint8), r"shape \(height, width, 3\) or \(height, width\), not \(4, 4, 4\)"),
            (np.zeros(4, np.uint8), "shape"),
            (np.zeros((0, 4, 3), np.uint8), "shape"),
            (np.zeros((4, 4, 3)), "not float64"),
            (np.zeros((4, 4, 3), bool), "not bool"),
            ([[0, 1]], "not list"),
            (np.full((4, 4, 3), 255, np.float32), r"must lie in \[0, 1\]"),
            (np.full((4, 4), -0.1, np.float32), r"must lie in \[0, 1\]"),
            (np.full((4, 4), np.nan, np.float32), r"must lie in \[0, 1\]"),
        ],
    )
    def test_another_shape_type_or_range_is_named(self, rainy: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            Network(Sees(Echo(), 0)).restore(rainy)

    def test_a_value_that_is_not_finite_is_an_error(self) -> None:
        with pytest.raises(NumericError, match="not finite"):
            Network(Sees(Echo(offset=float("nan")), 0)).restore(picture(4, 4))

    def test_progress_counts_the_tiles(self) -> None:
        seen: list[tuple[int, int]] = []
        Network(Sees(Echo(), 0), tile=16).restore(picture(40, 20), progress=lambda done, of: seen.append((done, of)))
        assert seen == [(number, 6) for number in range(1, 7)]


class TestLoad:
    @pytest.fixture
    def weights(self, tmp_path: Path) -> Path:
        networks.save_network(
            tmp_path / "small.safetensors", prenet().state_dict(), "prenet", Params(channels=4, stages=2, blocks=1), {}
        )
        return tmp_path / "small.safetensors"

    def test_the_package_offers_it_and_stays_light(self) -> None:
        code = "import sys, derain; assert not {'torch', 'numpy'} & set(sys.modules); print(derain.load.__module__)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "derain.restore.network"
        with pytest.raises(AttributeError, match="nothing"):
            _ = derain.nothing  # type: ignore[attr-defined]

    def test_a_file_of_the_pipeline_restores_pictures(self, weights: Path, hardware: Hardware) -> None:
        rainy = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
        expected = to_8_bit(estimate(prenet(), rainy, hardware), "nearest")
        np.testing.assert_array_equal(derain.load(weights, "cpu", "fp32").restore(rainy), expected)
        bounded = derain.load(str(weights), "cpu", "fp32", max_memory=8_000_000)
        tiled = bounded.restore(rainy)
        assert np.abs(tiled.astype(int) - expected).max() <= 1

    @pytest.mark.parametrize("option", [{"tile": 0}, {"overlap": -1}, {"max_memory": 0}])
    def test_impossible_values_are_named(self, weights: Path, option: dict[str, int]) -> None:
        with pytest.raises(ParamsError, match=next(iter(option))):
            derain.load(weights, "cpu", "fp32", **option)

    def test_an_exported_network_runs_on_the_cpu_in_fp32(self) -> None:
        with pytest.raises(ParamsError, match="in fp32"):
            derain.load("model.onnx", precision="bf16")

    def test_it_describes_what_decides_the_last_bits(self, weights: Path) -> None:
        options: list[dict[str, Any]] = [
            {}, {"precision": "bf16"}, {"tile": 48}, {"overlap": 2}, {"max_memory": 10**9}
        ]  # fmt: skip
        descriptions = [
            derain.load(str(weights), **{"device": "cpu", "precision": "fp32", **given}).describe() for given in options
        ]
        assert all(one != other for one, other in itertools.combinations(descriptions, 2))
        again = derain.load(str(weights), "cpu", "fp32")
        again.restore(np.zeros((40, 40, 3), np.uint8))
        assert again.describe() == descriptions[0]

    def test_missing_weights_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"missing\.safetensors is missing"):
            derain.load(tmp_path / "missing.safetensors")


class Halving(nn.Module):
    """A network that halves its picture five times and brings it back."""

    side_multiple = 32
    receptive_radius: int

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, rainy: Tensor) -> Restored:
        height, width = rainy.shape[-2:]
        coarse = nn.functional.avg_pool2d(mirrored_to(rainy, self.side_multiple), self.side_multiple)
        fine = nn.functional.interpolate(coarse, scale_factor=self.side_multiple)
        return Restored(self.last(rainy - 0.5 * fine[..., :height, :width]))


class TestSides:
    @pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 40), (32, 64), (33, 31)])
    def test_pictures_of_any_size_are_mirrored_to_multiples(self, size: tuple[int, int]) -> None:
        rainy = torch.rand(2, 3, *size)
        continued = mirrored_to(rainy, 8)
        assert [side % 8 for side in continued.shape[-2:]] == [0, 0]
        assert torch.equal(continued[..., : size[0], : size[1]], rainy)
        expected = np.pad(rainy.numpy(), [(0, 0), (0, 0), *((0, -side % 8) for side in size)], mode="reflect")
        np.testing.assert_array_equal(continued.numpy(), expected)

    def test_tiles_of_a_network_with_multiples_are_the_whole_picture(self) -> None:
        torch.manual_seed(0)
        network = Halving().eval()
        assert receptive_radius(network) is not None
        rainy = picture(203, 170)
        whole = Network(_Torch(network, CPU, 10**9)).restore(rainy)
        tiled = Network(_Torch(network, CPU, 10**9), tile=48).restore(rainy)
        np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-6)

    def test_a_radius_that_a_network_states_is_taken(self) -> None:
        network = Halving()
        network.receptive_radius = 77  # type: ignore[assignment]
        assert receptive_radius(network) == 77
