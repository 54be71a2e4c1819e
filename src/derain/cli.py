"""The `derain` command: finds the sub-command and turns errors into exit codes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from derain import console
from derain.commands import EXIT_CODES, demo, export, results, run, score, tables, verify, video

_COMMANDS = (run, video, score, export, demo, results, tables, verify)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `derain ARGV...` and returns the exit code; wrong usage raises SystemExit(2), as argparse does."""
    chosen = _parser().parse_args(argv)
    return console.code_of(lambda: chosen.main(chosen), "the files written so far are complete")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="derain", description="Takes rain off photographs.", epilog=EXIT_CODES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        added: argparse.ArgumentParser = commands.add_parser(
            command.__name__.rpartition(".")[2], help=command.HELP, description=command.__doc__, epilog=EXIT_CODES
        )
        command.arguments(added)
        added.set_defaults(main=command.main)
    return parser
