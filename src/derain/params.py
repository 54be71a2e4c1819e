"""params.yaml as frozen, typed objects. A wrong key or value names itself and what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from derain import plugins
from derain.plugins import Selected
from derain.types import DEVICES, ParamsError, Task

PARAMS_FILE = Path("params.yaml")

Entry = Mapping[str, Any]
"""What params.yaml says of a data set: its `source`, and what that asks for."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(allow_inf_nan=False, gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A section of params.yaml: unknown keys are errors, types are strict, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(Section):
    """How rendered sets are made. `photos` is `builtin` (scikit-image's own) or a folder of clean photographs."""

    photos: str
    test_share: Annotated[float, Field(gt=0, lt=1)]
    rains_per_photo: Count


class FirstTask(Section):
    """The first task of the stream, learned by train_task0."""

    dataset: Name


class LaterTask(Section):
    """A later task: its data set and the key of the task before it."""

    dataset: Name
    after: str

    @field_validator("after", mode="before")
    @classmethod
    def _key(cls, after: object) -> object:
        return str(after) if isinstance(after, int) and not isinstance(after, bool) else after


class Train(Section):
    """One task's training.

    `steps_per_epoch: null` means every patch of the set's grid once an epoch, `micro_batch: null` that as many samples
    go through the network at once as are fastest (`Hardware.pixels_at_once`).
    """

    lr: Positive
    epochs: Count
    steps_per_epoch: Count | None
    batch: Count
    # Left out of what is written while it is null: then it changes nothing.
    micro_batch: Annotated[Count | None, Field(exclude_if=lambda size: size is None)]
    patch: Annotated[int, Field(ge=11)]


class Start(Section):
    """Files that a stream starts from: a model, and the mask of what is consolidated of it."""

    model: Annotated[str, Field(min_length=1)]
    mask: Annotated[str, Field(min_length=1)] | None = None


class Params(Section):
    """All of params.yaml. The sections of plug-ins are checked by their own files (`section`).

    `launch` is for dvc.yaml alone: what stands before `-m stages.NAME` in the commands of the stages that compute.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)]
    device: Annotated[str, Field(pattern=rf"^({DEVICES})$")]
    precision: Literal["auto", "fp32", "bf16"]
    threads: Annotated[int, Field(ge=1, le=256)]
    launch: Annotated[str, Field(pattern=r"\S")]
    data: Data
    datasets: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    start: Start | None = None
    task0: FirstTask
    stream: dict[str, LaterTask]
    tests: Annotated[dict[Name, Literal["learned", "unseen"]], Field(min_length=1)]
    train: Train
    backbone: Name
    objective: Name
    recipe: Name
    strategy: Name
    sections: dict[str, dict[str, Any]]

    @field_validator("start", mode="before")
    @classmethod
    def _of_a_model(cls, start: object) -> object:
        return {"model": start} if isinstance(start, str) else start

    @field_validator("stream")
    @classmethod
    def _keys(cls, stream: dict[str, LaterTask]) -> dict[str, LaterTask]:
        for key in stream:
            if not re.fullmatch(r"[1-9]\d*", key):
                raise ValueError(f"the key {key!r} is not a number from 1 on")
        return stream

    @model_validator(mode="after")
    def _names_exist(self, _: ValidationInfo) -> Params:
        used = {"task0.dataset": self.task0.dataset}
        used |= {f"stream.{key}.dataset": task.dataset for key, task in self.stream.items()}
        used |= {f"tests.{name}": name for name in self.tests}
        for key, name in used.items():
            if name not in self.datasets:
                raise ParamsError(f"params.yaml: {key}: {name!r} is no data set. Allowed: {', '.join(self.datasets)}.")
        for name, entry in self.datasets.items():
            read_entry(entry, f"params.yaml: datasets.{name}")
        _chain(self.task0, self.stream)
        return self

    @property
    def tasks(self) -> list[Task]:
        """The stream in the order of its `after` links, the first task in front."""
        return _chain(self.task0, self.stream)

    def task(self, key: str) -> Task:
        """The task of that key; ParamsError for another one."""
        for task in self.tasks:
            if task.key == key:
                return task
        raise ParamsError(f"task {key!r} is not in the stream of params.yaml. Allowed: {_keys_of(self.tasks)}.")

    @property
    def content(self) -> dict[str, Any]:
        """What their params.yaml holds: its keys alone, and the sections beside the others."""
        content = _as_set(self)
        sections = content.pop("sections")
        return {**content, **sections}

    def selected(self, kind: Selected) -> str:
        """The name of the plug-in of that kind that is selected."""
        return str(getattr(self, plugins.KEYS[kind]))

    def section(self, kind: Selected) -> Any:
        """The selected plug-in's own section, checked by the `Params` of its file."""
        name = self.selected(kind)
        return _read(plugins.load(kind, name).Params, self.sections.get(name, {}), f"{name}.")


def load(path: Path = PARAMS_FILE) -> Params:
    """Reads and checks params.yaml. The sections of plug-ins are checked when they are asked for."""
    return of(content(path), str(path))


def content(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """What params.yaml holds, as it is; only its YAML is checked."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise ParamsError(
            f"{path} is missing. Run this from the project's root, or copy profiles/*.yaml there."
        ) from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def parse(text: str, name: str) -> dict[str, Any]:
    """The content of a params.yaml; `name` is its name in messages."""
    try:
        raw = yaml.load(text, Loader=_Yaml12)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ParamsError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ParamsError(f"{name} must be a mapping of keys to values.")
    try:
        json.dumps(raw, default=str)
    except (ValueError, RecursionError):
        raise ParamsError(f"{name}: an alias (*) stands within what it names. Write the value out.") from None
    return raw


def of(content: Mapping[str, Any], name: str = "params.yaml") -> Params:
    """The checked parameters of a params.yaml's content; see `load`."""
    names = {name for kind in plugins.SELECTED for name in plugins.names(kind)}
    sections = {key: value or {} for key, value in content.items() if key in names}
    others = {key: value for key, value in content.items() if key not in names}
    unknown = set(others) - set(Params.model_fields)
    if unknown or "sections" in others:
        key = min(unknown or {"sections"})
        allowed = [name for name in (*Params.model_fields, *sorted(names)) if name != "sections"]
        raise ParamsError(f"{name}: {key}: unknown key. Allowed: {', '.join(allowed)}.")
    return _read(Params, {**others, "sections": sections}, "")


def check(path: Path = PARAMS_FILE) -> Params:
    """Reads params.yaml and checks every section of it, the unselected ones too."""
    params = load(path)
    for kind in plugins.SELECTED:
        for name in plugins.names(kind):
            if name in params.sections:
                _read(plugins.load(kind, name).Params, params.sections[name], f"{name}.")
        params.section(kind)
    return params


def parts(entry: Entry) -> list[Entry]:
    """The entries that one is made of: those of a union, else itself."""
    return [part for each in entry["of"] for part in parts(each)] if entry["source"] == "mix" else [entry]


def sources(entry: Entry) -> set[str]:
    """The sources that make an entry: its own, and those of a union's parts."""
    return {str(each["source"]) for each in (entry, *parts(entry))}


def read_entry(entry: Entry, key: str) -> Any:
    """An entry of `datasets`, checked by the `Params` of its source's file.

    Raises:
        ParamsError: there is no such source, or a key or value is wrong; the message begins with the entry's `key`.
    """
    if "source" not in entry:
        raise ParamsError(f"{key}.source: the key is missing. Allowed: {', '.join(plugins.names('sources'))}.")
    plugin = plugins.load("sources", str(entry["source"]), f"{key}.source")
    own = {name: value for name, value in entry.items() if name != "source"}
    checked = _read(plugin.Params, own, key.removeprefix("params.yaml: ") + ".")
    if entry["source"] == "mix":
        for number, part in enumerate(entry["of"]):
            read_entry(part, f"{key}.of.{number}")
    return checked


class _Yaml12(yaml.SafeLoader):
    """Numbers and truth values of YAML 1.2, as DVC reads and writes them; a key that occurs twice is an error.

    In YAML 1.1 1e-05 is a text, 010 is eight, 1:30 is ninety, and `no` is false.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise ParamsError(f"params.yaml: {min(twice)}: the key occurs twice (line {node.start_mark.line + 1}).")
        for key in keys:
            if not isinstance(key, str):
                raise ParamsError(f'params.yaml: {key}: DVC ignores keys that are not texts. Write "{key}".')
        return super().construct_mapping(node, deep)


_SCALARS = {
    "bool": ("tTfF", r"true|True|TRUE|false|False|FALSE"),
    "int": ("-+0123456789", r"[-+]?[0-9]+"),
    "float": (
        "-+.0123456789",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    ),
}
_TAG = "tag:yaml.org,2002:"

_Yaml12.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(_TAG) not in _SCALARS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, (_first, _pattern) in _SCALARS.items():
    _Yaml12.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), list(_first))
_Yaml12.add_constructor(_TAG + "int", lambda _, node: int(node.value))


S = TypeVar("S", bound=BaseModel)


def _read(model: type[S], raw: Any, prefix: str) -> S:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(_message(error, prefix)) from None


def _message(error: ValidationError, prefix: str) -> str:
    """The first fault in one line: key, value, what is allowed."""
    fault = error.errors(include_url=False)[0]
    location = [str(part) for part in fault["loc"]]
    key = (prefix + ".".join(location)).removeprefix("sections.").rstrip(".")
    if fault["type"] == "extra_forbidden":
        return f"params.yaml: {key}: unknown key. Mend its spelling or remove it."
    if fault["type"] == "missing":
        return f"params.yaml: {key}: the key is missing."
    what = fault["msg"].removeprefix("Value error, ")
    value = fault["input"]
    shown = repr(value) if isinstance(value, str | int | float | list | type(None)) else "its values"
    return f"params.yaml: {key}: {shown} is not allowed. {what[0].upper()}{what[1:]}."


def _chain(first: FirstTask, stream: dict[str, LaterTask]) -> list[Task]:
    """Follows the `after` links; every task must come after one other, and no two after the same."""
    follower: dict[str, str] = {}
    for key, later in stream.items():
        if later.after not in {"0", *stream}:
            raise ParamsError(
                f"params.yaml: stream.{key}.after: {later.after!r} is no task. Allowed: {', '.join(['0', *stream])}."
            )
        if later.after in follower:
            raise ParamsError(
                f"params.yaml: stream.{key}.after: {later.after!r} is followed by {follower[later.after]!r} already."
                " A stream is one line: each task comes after another one."
            )
        follower[later.after] = key
    tasks = [Task("0", 0, first.dataset, None)]
    while tasks[-1].key in follower:
        key = follower[tasks[-1].key]
        tasks.append(Task(key, len(tasks), stream[key].dataset, tasks[-1].key))
    unreached = set(stream) - {task.key for task in tasks}
    if unreached:
        raise ParamsError(
            f"params.yaml: stream.{min(unreached)}.after: the chain of tasks never comes here from task '0'."
        )
    return tasks


def _as_set(value: Any) -> Any:
    """A value as YAML has it. Unlike `model_dump` it keeps a null that was written."""
    if isinstance(value, BaseModel):
        return {key: _as_set(part) for key, part in value if key in value.model_fields_set}
    if isinstance(value, dict):
        return {key: _as_set(part) for key, part in value.items()}
    return [_as_set(part) for part in value] if isinstance(value, list) else value


def _keys_of(tasks: list[Task]) -> str:
    return ", ".join(task.key for task in tasks)
