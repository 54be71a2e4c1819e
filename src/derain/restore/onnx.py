"""A network as an ONNX file: written for other programs, and run here without torch's kernels."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from derain.disk import networks
from derain.disk.atomic import write_atomically
from derain.types import DataError, NumericError, ParamsError

if TYPE_CHECKING:
    import onnx
    import onnxruntime
    from torch import nn

INPUT, OUTPUT = "rainy", "derained"
SIZES = ((64, 64), (33, 47), (120, 57))
"""Heights and widths at which an export is compared with torch."""
LARGEST_DIFFERENCE = 1e-3
"""Of the estimate in [0, 1] between torch and the file, in fp32: a quarter of a level of 8 bits."""

_KEY = "derain"


def export(weights: Path, path: Path) -> float:
    """Writes the network of `weights` as ONNX with any batch, height and width, after comparing it with torch.

    Its input `rainy` is (N, 3, H, W), float32, RGB in [0, 1], its output `derained` the last estimate of the same
    shape, not clamped. What made the weights is in its metadata, with the receptive radius in pixels.

    Returns:
        The largest difference to torch's estimate that was found.

    Raises:
        DataError: the weights are missing or damaged.
        NumericError: the exported network gives something else; nothing is written.
        ParamsError: the extra `onnx` is not installed.
    """
    _needed()
    import torch
    from torch import Tensor

    from derain.compute.hardware import Hardware
    from derain.restore import probe
    from derain.restore.network import DEFAULT_MEMORY

    network = networks.load_network(weights)

    class LastEstimate(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, rainy: Tensor) -> Tensor:
            derained: Tensor = self.network(rainy).derained
            return derained

    size = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    example = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            LastEstimate().eval(),
            (example,),
            dynamo=True,
            dynamic_shapes={INPUT: size},
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    taken = probe.taken(network, Hardware(torch.device("cpu"), "fp32"))
    radius = probe.receptive_radius(network, fits=lambda pixels: taken(pixels) <= DEFAULT_MEMORY)
    made = {"receptive_radius": radius, "side_multiple": getattr(network, "side_multiple", 1)}
    made |= {"made_by": _made_by(weights)}
    entry = model.metadata_props.add()
    entry.key, entry.value = _KEY, json.dumps(made, sort_keys=True)
    content = model.SerializeToString()
    difference = _difference(network, _Session(content, path))
    if not difference <= LARGEST_DIFFERENCE:
        raise NumericError(f"{weights}: exported to ONNX it gives estimates that differ by {difference:.2g}.")
    write_atomically(path, content)
    return difference


def _made_by(weights: Path) -> Mapping[str, Any]:
    from derain.disk import artifacts

    return artifacts.load(weights)[1] if weights.suffix == ".safetensors" else {"published checkpoint": weights.name}


def _difference(network: nn.Module, session: _Session) -> float:
    import torch

    rng = np.random.default_rng(0)
    largest = 0.0
    for number, (height, width) in enumerate(SIZES):
        batch = rng.random((1 + number % 2, 3, height, width), dtype=np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(batch)).derained.numpy()
        largest = max(largest, float(np.abs(session(batch) - expected).max()))
    return largest


def forward(path: Path) -> _Session:
    """The network of an ONNX file, as `derain.restore.network.Forward`, on the CPU.

    Raises:
        DataError: the file is missing, damaged, or no network from pictures to pictures, or needs other files.
        ParamsError: the extra `onnx` is not installed.
    """
    _needed()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    return _Session(content, path)


class _Session:
    """An ONNX file that is ready to run."""

    def __init__(self, content: bytes, path: Path) -> None:
        import onnx
        import onnxruntime

        try:
            model = onnx.load_model(io.BytesIO(content), load_external_data=False)
            onnx.checker.check_model(model)
        except Exception as error:  # protobuf and the checker raise kinds of their own
            raise DataError(f"{path} is damaged or no ONNX file ({type(error).__name__}).") from None
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model.graph)):
            raise DataError(f"{path} points to other files, which are not read. Export it as one file.")
        options = onnxruntime.SessionOptions()
        options.enable_cpu_mem_arena = False  # it would keep the largest tile's memory for good
        options.log_severity_level = 4
        try:
            self._session: onnxruntime.InferenceSession = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises a dozen kinds of its own
            raise DataError(f"{path} cannot be run ({type(error).__name__}).") from None
        shapes = [[node.name, node.type, len(node.shape)] for node in self._ends()]
        if shapes != [[INPUT, "tensor(float)", 4], [OUTPUT, "tensor(float)", 4]]:
            raise DataError(f"{path} is no network from pictures to pictures. Make it with `derain export`.")
        self.receptive_radius, self.side_multiple = _stated(model, path)

    def _ends(self) -> list[Any]:
        return [*self._session.get_inputs(), *self._session.get_outputs()]

    def describe(self) -> dict[str, str | int]:
        import onnxruntime

        return {"device": "cpu", "precision": "fp32", "onnxruntime": onnxruntime.__version__}

    def __call__(self, batch: NDArray[np.float32], /) -> NDArray[np.float32]:
        try:
            derained: NDArray[np.float32] = self._session.run([OUTPUT], {INPUT: batch})[0]
        except Exception as error:
            if "allocate" in str(error):
                raise MemoryError from None
            raise
        return derained


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All constant tensors of a graph and of the graphs within it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _stated(model: onnx.ModelProto, path: Path) -> tuple[int | None, int]:
    """How far the network sees, and of which number it makes sides multiples."""
    entries = {entry.key: entry.value for entry in model.metadata_props}
    try:
        stated = json.loads(entries[_KEY])
        radius, multiple = stated["receptive_radius"], stated.get("side_multiple", 1)
        if (radius is None or (isinstance(radius, int) and 0 <= radius <= 10_000)) and 1 <= int(multiple) <= 1024:
            return radius, int(multiple)
    except (KeyError, TypeError, ValueError):
        pass
    raise DataError(f"{path} was not exported by `derain export`: it does not say how far the network sees.")


def _needed() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as missing:
        raise ParamsError(f"ONNX needs {missing.name}: pip install '.[onnx]'") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's chatter from the user."""
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
