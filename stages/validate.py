"""validate: checks all of params.yaml before any other stage starts."""

from derain import params
from derain.console import run
from derain.data.sources import check_sets
from derain.disk import atomic, paths
from stages import _task


def main() -> None:
    settings = params.check()
    check_sets(settings)
    # Always the same bytes: a valid change of params.yaml reruns the stages that use the changed key, and no others.
    atomic.write_atomically(paths.VALIDATED / "params", b"params.yaml is valid\n")
    _task.write_start(settings)


if __name__ == "__main__":
    run(main)
