"""How pages and tables write what recurs: numbers, the stream, where a test set's rain was learned."""

from __future__ import annotations

from derain.params import Params

NOTHING = "–"


def number(value: float, form: str = ".2f") -> str:
    """A number with a true minus sign."""
    return format(value, form).replace("-", "−")


def stream(params: Params) -> str:
    """The data sets of the tasks in order."""
    return " → ".join(task.dataset for task in params.tasks)


def learned_in(params: Params, test: str) -> str:
    """The tasks that learned from a test set's data set, for the small print beside its name."""
    tasks = [task.name for task in params.tasks if task.dataset == test]
    if tasks:
        return f"learned in {', '.join(tasks)}"
    return "never learned" if params.tests[test] == "unseen" else ""
