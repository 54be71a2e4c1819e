"""validate: checks all of params.yaml before any other stage starts."""

from derain import params as parameters
from derain import stream
from derain.console import run
from derain.data.sets import check_sets, code_of
from derain.disk import atomic, paths
from stages import _task


def main() -> None:
    params = parameters.check()
    sources = check_sets(params)
    stream.check(params, lambda name: sources[name].roles)
    # The same bytes for the same code: a valid change of params.yaml reruns the stages that use the changed key, and no
    # others. What DVC cannot say stands here: which sources' files make a set, a union's parts' too.
    for left in paths.VALIDATED.glob("sets/*.json"):
        left.unlink()
    for name, entry in params.datasets.items():
        atomic.write_json(paths.VALIDATED / f"sets/{name}.json", code_of(entry))
    _task.write_start(params)


if __name__ == "__main__":
    run(main)
