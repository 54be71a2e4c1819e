"""Bad parameters give the promised message: the key, the value, what is allowed; and nothing starts."""

from pathlib import Path

import pytest
import yaml
from ruamel.yaml import YAML

from derain import params
from derain.types import ParamsError

ROOT = Path(__file__).resolve().parent.parent
PROFILES = [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))]


def changed(tmp_path: Path, **changes: object) -> Path:
    """params.yaml with values changed or added; keys are paths, `nr__alpha_l`. None removes the key."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for path, value in changes.items():
        *parents, key = path.split("__")
        section = content
        for parent in parents:
            section = section[parent]
        section[key] = value
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.name)
def test_every_profile_is_valid_and_has_the_keys_of_the_demo(profile: Path) -> None:
    params.check(profile)
    demo, other = (yaml.safe_load(path.read_text()) for path in (PROFILES[0], profile))
    assert other.keys() == demo.keys()


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.name)
def test_parameters_know_what_their_file_holds(profile: Path) -> None:
    raw = params.content(profile)
    assert params.load(profile).content == raw
    assert params.load(profile).model_copy(update={"seed": 7}).content == raw | {"seed": 7}


@pytest.mark.parametrize("text", ["1e-05", "1e-5", "1E-5", "1.0e-05", "0.00001", "+1e-05"])
def test_what_dvc_writes_for_a_small_number_is_a_number(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text((ROOT / "params.yaml").read_text().replace("lr: 0.002", f"lr: {text}"))
    assert params.load(file).train.lr == 1e-5


@pytest.mark.parametrize(
    "text",
    [
        "010",
        "1:30",
        "no",
        "off",
        "yes",
        "1e-05",
        ".5",
        "1.",
        "-3",
        "+7",
        "true",
        "False",
        "null",
        "~",
        ".inf",
        "nan",
    ],
)
def test_scalars_are_what_dvcs_yaml_library_takes_them_for(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(f"value: {text}")
    expected = YAML(typ="safe", pure=True).load(file.read_text())
    content = params.content(file)
    assert (content, type(content["value"])) == (expected, type(expected["value"]))


@pytest.mark.parametrize(
    ("changes", "key", "told"),
    [
        ({"nr__alpha_l": -0.1}, "nr.alpha_l", "greater than or equal to 0"),
        ({"nr__alpha_l": 0.2}, "nr.alpha_l", "Above 0.0951626"),
        ({"nr__alpha_l": float("nan")}, "nr.alpha_l", "finite"),
        ({"nr__alpha_l": float("inf")}, "nr.alpha_l", "finite"),
        ({"nr__alpha_l": "0.01"}, "nr.alpha_l", "valid number"),
        ({"nr__alpha_l": None}, "nr.alpha_l", "valid number"),
        ({"nr__alpha_l": True}, "nr.alpha_l", "valid number"),
        ({"nr__tau_l": 1}, "nr.tau_l", "above nr.tau_s"),
        ({"nr__tau_s": 0}, "nr.tau_s", "greater than 0"),
        ({"nr__lambda_kd": -1}, "nr.lambda_kd", "greater than or equal to 0"),
        ({"nr__rank": "some"}, "nr.rank", "'all' or 'free'"),
        ({"nr__alpah_l": 0.01}, "nr.alpah_l", "unknown key"),
        ({"train__lr": "fast"}, "train.lr", "valid number"),
        ({"train__lr": float("nan")}, "train.lr", "finite"),
        ({"train__batch": 2.5}, "train.batch", "valid integer"),
        ({"train__batch": 0}, "train.batch", "greater than or equal to 1"),
        ({"adam_multistep__milestones": [0.5, 0.3]}, "adam_multistep.milestones", "increase"),
        ({"train__epoch": 3}, "train.epoch", "unknown key"),
        ({"strategy": "nope"}, "strategy", "Allowed: ewc, mas, nr, "),
        ({"backbone": "nope"}, "backbone", "Allowed: prenet"),
        ({"precision": "fp64"}, "precision", "'auto', 'fp32' or 'bf16'"),
        ({"device": "gpu"}, "device", "auto|cpu|cuda"),
        ({"seed": "0"}, "seed", "valid integer"),
        ({"sead": 1}, "sead", "unknown key. Allowed: seed, device"),
        ({"sections": {}}, "sections", "unknown key"),
        ({"task0__dataset": "nope"}, "task0.dataset", "Allowed: heavy, medium"),
        ({"stream__1": {"dataset": "nope", "after": "0"}}, "stream.1.dataset", "Allowed: heavy, medium"),
        ({"stream__1": {"dataset": "medium", "after": "9"}}, "stream.1.after", "is no task"),
        ({"stream__3": {"dataset": "light", "after": "1"}}, "stream.3.after", "is followed by '2' already"),
        ({"stream__1": {"dataset": "medium", "after": "3"}}, "stream.1.after", "never comes here"),
        ({"stream__x": {"dataset": "light", "after": "3"}}, "stream", "not a number from 1 on"),
        ({"datasets__heavy": {"source": "rendered"}}, "datasets.heavy.kind", "missing"),
        ({"datasets__heavy": {"source": "nope"}}, "datasets.heavy.source", "Allowed: benchmark, mix, pairs, rendered"),
        (
            {"datasets__heavy": {"source": "benchmark", "set": "Rain100H", "url": "u", "folder": "f"}},
            "datasets.heavy",
            "exactly one of url, gdrive, archive, folder",
        ),
        ({"data__test_share": 1.0}, "data.test_share", "less than 1"),
        ({"tests__heavy": "seen"}, "tests.heavy", "'learned' or 'unseen'"),
        ({"tests__other": "learned"}, "tests.other", "no data set"),
        ({"prenet__channels": 0}, "prenet.channels", "greater than or equal to 1"),
    ],
)
def test_the_message_names_key_value_and_what_is_allowed(
    tmp_path: Path, changes: dict[str, object], key: str, told: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        params.check(changed(tmp_path, **changes))
    message = str(caught.value)
    assert f"{key}:" in message
    assert told in message
    assert message.count("\n") <= 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('  1: {dataset: medium, after: "0"}', 'Write "1"'),
        ('  "2": {dataset: medium, after: "0"}', "2: the key occurs twice"),
        ('  "1": {dataset: medium, after: "0"', "not valid YAML"),
    ],
)
def test_what_dvc_would_misread_is_refused(tmp_path: Path, line: str, told: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text((ROOT / "params.yaml").read_text().replace('  "1": {dataset: medium, after: "0"}', line))
    with pytest.raises(ParamsError, match=r"params\.yaml") as caught:
        params.check(file)
    assert told in str(caught.value)


def test_a_missing_file_says_where_to_be(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="project's root"):
        params.load(tmp_path / "params.yaml")


def test_the_stream_follows_its_links_not_its_keys(tmp_path: Path) -> None:
    reordered = changed(tmp_path, stream__1__after="2", stream__2__after="0", stream__3__after="1")
    tasks = params.load(reordered).tasks
    assert [task.key for task in tasks] == ["0", "2", "1", "3"]
    assert [task.position for task in tasks] == [0, 1, 2, 3]
    assert [task.dataset for task in tasks] == ["heavy", "varied", "medium", "light"]


def test_an_empty_stream_has_one_task(tmp_path: Path) -> None:
    assert [task.dataset for task in params.load(changed(tmp_path, stream={})).tasks] == ["heavy"]
