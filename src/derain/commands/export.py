"""Writes a network as ONNX, for pictures of any size, after comparing it with PyTorch on the spot."""

from __future__ import annotations

import argparse
from pathlib import Path

from derain import console

HELP = "a network as ONNX, for other programs"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", required=True, type=Path, metavar="FILE", help="a .safetensors or .pth file")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.onnx")


def main(chosen: argparse.Namespace) -> int:
    from derain.restore import onnx

    difference = onnx.export(chosen.weights, chosen.output)
    console.say(f"wrote {chosen.output}: differs from PyTorch by at most {difference:.1g} of the range 0 to 1")
    return 0
