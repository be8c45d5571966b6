"""The container's command on what Kubeflow's own driver gave it, in both of its forms."""

import copy
import inspect
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor
from tfx.utils import name_utils

from pipeline import plain
from pipeline.baseline import Baseline
from pipeline.kubeflow_artifacts import Places, for_kubeflow, for_tfx
from pipeline.kubeflow_entrypoint import _PLAIN, main
from pipeline.schema_by_content import CuratedSchema

RECORDED = Path(__file__).parent / "kubeflow"
FORMS = sorted(path.relative_to(RECORDED).with_suffix("").as_posix() for path in RECORDED.glob("*/*.json"))
COMPONENTS = json.loads((RECORDED / "components.json").read_text())
EXECUTORS = "tests.pipeline.kubeflow_executors"
BUCKET = "minio://mlpipeline/v2/artifacts/tfctr"


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def recorded(form: str, mounts: Path) -> dict[str, Any]:
    given = json.loads((RECORDED / f"{form}.json").read_text())
    given["outputs"]["outputFile"] = f"{mounts}{given['outputs']['outputFile']}"
    return given


def inputs_of(form: str) -> dict[str, Any]:
    return COMPONENTS.get(form.rpartition("/")[2].rpartition(".")[2], {})


def run(form: str, executor: str, mounts: Path, given: dict[str, Any] | None = None) -> int:
    return main(
        [
            "--executor_class_path",
            executor if "." in executor else f"{EXECUTORS}.{executor}",
            "--json_serialized_invocation_args",
            json.dumps(given or recorded(form, mounts)),
            "--json_serialized_inputs_spec_args",
            json.dumps(inputs_of(form)),
            f"--mounts={mounts}",
            "--beam_plugin=pipeline.beam_compat",
        ]
    )


def output_of(form: str, mounts: Path) -> dict[str, Any]:
    return json.loads(Path(recorded(form, mounts)["outputs"]["outputFile"]).read_text())


def own_outputs(given: dict[str, Any]) -> dict[str, Any]:
    return {
        name: entry["artifacts"][0] for name, entry in given["outputs"]["artifacts"].items() if name != "executor-logs"
    }


def title(schema: dict[str, str]) -> str:
    return schema["instanceSchema"].splitlines()[0].removeprefix("title: tfx.")


@pytest.mark.parametrize("form", FORMS)
def test_tfx_runs_every_recorded_input(form: str, tmp_path: Path) -> None:
    given = recorded(form, tmp_path)

    assert run(form, "Witness", tmp_path) == 0

    outputs = own_outputs(given)
    written = output_of(form, tmp_path).get("artifacts", {})
    assert {name: entry["artifacts"][0]["uri"] for name, entry in written.items()} == {
        name: artifact["uri"] for name, artifact in outputs.items()
    }
    for name, artifact in outputs.items():
        path = tmp_path / artifact["uri"].replace("://", "/")
        assert written[name]["artifacts"][0]["name"] == name
        if name == "verdict":
            assert path.read_text() == "written"
            continue
        told = json.loads((path / "witness.json").read_text())
        types = {key: title(spec["artifactType"]) for key, spec in inputs_of(form).get("artifacts", {}).items()}
        assert {key: kind for key, [[kind, *_]] in told["inputs"].items()}.items() <= types.items()
        assert all(uri.startswith(f"{tmp_path}/minio/") for [[_, uri, *_]] in told["inputs"].values())
        parameters = given["inputs"].get("parameterValues", {})
        assert told["properties"].keys() == parameters.keys()


@pytest.mark.parametrize("form", FORMS)
def test_nothing_of_a_container_stays_in_the_output(form: str, tmp_path: Path) -> None:
    assert run(form, "Witness", tmp_path) == 0

    text = json.dumps(output_of(form, tmp_path))
    assert str(tmp_path) not in text
    assert ": null" not in text
    assert [path.name for path in tmp_path.rglob("output_metadata.json*")] == ["output_metadata.json"]


def test_the_first_evaluation_sees_no_baseline(tmp_path: Path) -> None:
    assert run("first_run/Evaluator", "Judge", tmp_path) == 0

    [blessing] = output_of("first_run/Evaluator", tmp_path)["artifacts"]["blessing"]["artifacts"]
    assert "baseline_model" not in blessing["metadata"]
    assert blessing["metadata"]["current_model"].startswith(f"{BUCKET}/prod1/Trainer/")


@pytest.mark.parametrize(
    ("form", "model", "baseline"),
    [("second_run/Evaluator", "71", "81"), ("without_mlmd/Evaluator", "id-71", "id-81")],
)
def test_the_blessing_names_both_models(form: str, model: str, baseline: str, tmp_path: Path) -> None:
    assert run(form, "Judge", tmp_path) == 0

    [blessing] = output_of(form, tmp_path)["artifacts"]["blessing"]["artifacts"]
    told = blessing["metadata"]
    assert (told["current_model_id"], told["baseline_model_id"]) == (model, baseline)
    assert told["baseline_model"].startswith(f"{BUCKET}/prod2/Baseline/")


def test_metadata_comes_without_what_kubeflow_adds_and_wraps(tmp_path: Path) -> None:
    given = recorded("first_run/AnomalyGate", tmp_path)

    translated = for_tfx(given, COMPONENTS["AnomalyGate"], Places(tmp_path))

    [anomalies] = translated["inputs"]["artifacts"]["anomalies"]["artifacts"]
    assert anomalies["metadata"] == {
        "blessed": {"eval": 1, "test": 1, "train": 1},
        "span": 0,
        "split_names": '["train", "eval", "test"]',
        "tfx_version": "1.21.0",
    }
    assert translated["outputs"]["artifacts"].keys() == {"verdict"}


@pytest.mark.parametrize(("scheme", "folder"), [("minio", "minio"), ("s3", "s3"), ("gs", "gcs")])
def test_a_place_is_the_folder_that_the_launcher_gave_it(scheme: str, folder: str) -> None:
    places = Places()
    uri = f"{scheme}://bucket/run/model"

    assert places.local({"uri": uri}) == f"/{folder}/bucket/run/model"
    assert places.remote(f"/{folder}/bucket/run/model/Format-Serving") == f"{uri}/Format-Serving"
    assert places.remote(f"/{folder}/bucket/run/model2") == f"/{folder}/bucket/run/model2"


def test_a_path_that_kubeflow_chose_is_kept(tmp_path: Path) -> None:
    given = recorded("first_run/StatisticsGen", tmp_path)
    [examples] = given["inputs"]["artifacts"]["examples"]["artifacts"]
    examples["customPath"] = "/elsewhere/examples"
    places = Places(tmp_path)

    translated = for_tfx(given, COMPONENTS["StatisticsGen"], places)

    assert translated["inputs"]["artifacts"]["examples"]["artifacts"][0]["uri"] == "/elsewhere/examples"
    assert places.remote("/elsewhere/examples/Split-train") == f"{examples['uri']}/Split-train"


def test_nulls_go_wherever_they_are() -> None:
    output = {
        "artifacts": {"a": {"artifacts": [{"uri": "x", "metadata": {"b": None, "c": {"d": None, "e": [None, 1]}}}]}}
    }

    assert for_kubeflow(output, Places()) == {
        "artifacts": {"a": {"artifacts": [{"uri": "x", "metadata": {"c": {"e": [1]}}}]}}
    }


def test_a_place_without_a_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = recorded("first_run/ExampleGen", tmp_path)
    given["outputs"]["artifacts"]["examples"]["artifacts"][0]["uri"] = "oci://registry/examples"

    assert run("first_run/ExampleGen", "Witness", tmp_path, given) == 1
    assert "error: oci://registry/examples: an artifact must lie at one of minio://" in capsys.readouterr().err


def test_a_runtime_parameter_is_put_into_the_custom_config(tmp_path: Path) -> None:
    given = recorded("first_run/Trainer", tmp_path)
    given["inputs"]["parameterValues"]["data"] = "/data/of/today"

    parameters = for_tfx(given, COMPONENTS["Trainer"], Places(tmp_path))["inputs"]["parameterValues"]

    custom = json.loads(parameters["custom_config"])
    assert custom["data"] == "/data/of/today"
    assert custom["checkpoints"] == "/data/kf/checkpoints"
    assert "data" not in parameters


def test_the_custom_config_of_an_example_gen_is_no_parameter_of_its_own(tmp_path: Path) -> None:
    given = recorded("first_run/ExampleGen", tmp_path)
    message = json.dumps({"custom_config": {"value": "told"}}, sort_keys=True)
    given["inputs"]["parameterValues"]["custom_config"] = message

    parameters = for_tfx(given, COMPONENTS["ExampleGen"], Places(tmp_path))["inputs"]["parameterValues"]

    assert parameters["custom_config"] == message
    assert parameters["input_base"]


def test_a_mistake_of_the_user_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("first_run/ExampleGen", "Refusing", tmp_path) == 1

    told = capsys.readouterr().err
    assert "error: column 'click': has the value 2\n" in told
    assert "Traceback" not in told
    assert not list(tmp_path.rglob("output_metadata.json"))


def changed(form: str, mounts: Path, change: Any) -> dict[str, Any]:
    given = recorded(form, mounts)
    change(given)
    return given


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda given: given["inputs"]["artifacts"].update(baseline_model={}), id="an empty input"),
        pytest.param(
            lambda given: given["inputs"]["artifacts"].update(baseline_model={"artifacts": None}), id="a null input"
        ),
        pytest.param(lambda given: given["inputs"]["artifacts"].pop("baseline_model"), id="no input"),
        pytest.param(
            lambda given: given["inputs"]["artifacts"]["model"]["artifacts"][0].update(metadata=None), id="no metadata"
        ),
        pytest.param(
            lambda given: given["inputs"]["artifacts"]["model"]["artifacts"][0]["metadata"].update(some=None),
            id="a null in metadata",
        ),
        pytest.param(
            lambda given: given["outputs"]["artifacts"].update(
                extra={"artifacts": [{"name": "e", "uri": f"{BUCKET}/e", "type": {"schemaTitle": "system.Artifact"}}]}
            ),
            id="one more output of Kubeflow's",
        ),
    ],
)
def test_what_kubeflow_may_leave_out_or_add(change: Any, tmp_path: Path) -> None:
    form = "first_run/Evaluator"
    assert run(form, "Witness", tmp_path, changed(form, tmp_path, change)) == 0


@pytest.mark.parametrize(
    ("form", "change", "message"),
    [
        (
            "first_run/Evaluator",
            lambda given: given["inputs"]["artifacts"].update(other=given["inputs"]["artifacts"]["model"]),
            "inputs.artifacts.other: the component has no such input. Allowed: ",
        ),
        (
            "first_run/Trainer",
            lambda given: given["inputs"]["parameterValues"].update(custom_config="{"),
            "parameterValues.custom_config: is no JSON",
        ),
        (
            "first_run/Trainer",
            lambda given: given["inputs"]["parameterValues"].update(custom_config="[1]"),
            "parameterValues.custom_config: must be a mapping. Received: list",
        ),
        (
            "first_run/Pusher",
            lambda given: given["inputs"]["parameterValues"].update(destination="models"),
            "destination: models: a path in a container must be absolute",
        ),
        (
            "first_run/Pusher",
            lambda given: given["inputs"]["parameterValues"].update(destination="ram://models"),
            "what ram:// holds is gone when this process ends",
        ),
        (
            "first_run/Baseline",
            lambda given: given["inputs"]["parameterValues"].update(destination=5),
            "destination: must be a path or an address. Received: 5",
        ),
        ("first_run/Baseline", lambda given: given["outputs"].pop("outputFile"), "outputs.outputFile: is missing"),
    ],
)
def test_what_it_can_not_be_is_told_in_a_line(
    form: str, change: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(form, "Witness", tmp_path, changed(form, tmp_path, change)) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_plain_component_is_called_with_what_it_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = "pipeline.baseline.Baseline_Executor"
    pushed = tmp_path / "pushed"
    pushed.mkdir()
    given = recorded("first_run/Baseline", tmp_path)
    given["inputs"]["parameterValues"] = {"destination": str(pushed), "data_version": "2026-11-27"}
    assert run("first_run/Baseline", executor, tmp_path, given) == 0
    given["inputs"]["parameterValues"] = {}
    assert run("first_run/Baseline", executor, tmp_path, given) == 1
    assert "error: executor input: write_baseline needs destination" in capsys.readouterr().err


def test_a_volume_that_can_not_be_written_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    form, given = "first_run/Pusher", recorded("first_run/Pusher", tmp_path)
    (tmp_path / "a file").touch()
    given["inputs"]["parameterValues"]["destination"] = str(tmp_path / "a file" / "models")
    for name in ("model", "blessing"):
        one = given["inputs"]["artifacts"][name]["artifacts"][0]
        folder = Path(Places(tmp_path).local(one))
        (folder / "Format-Serving").mkdir(parents=True)
        (folder / "Format-Serving" / "saved_model.pb").write_text("graph")
    assert run(form, "pipeline.pusher.AtomicPusher_Executor", tmp_path, given) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}/a file")


def test_a_mistake_of_ours_keeps_its_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("first_run/ExampleGen", "Failing", tmp_path) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_pod_that_is_told_to_stop_ends_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("first_run/Trainer", "Terminated", tmp_path) == 143
    assert "a retry goes on" in capsys.readouterr().err


def test_what_a_killed_try_left_is_not_read(tmp_path: Path) -> None:
    given = recorded("first_run/StatisticsGen", tmp_path)
    left = Path(f"{given['outputs']['outputFile']}.unfinished")
    left.parent.mkdir(parents=True)
    left.write_text('{"parameterValues": {"exclude_splits": "of the killed try"}}')

    assert run("first_run/StatisticsGen", "Witness", tmp_path) == 0

    [witness] = tmp_path.rglob("witness.json")
    assert json.loads(witness.read_text())["properties"] == {"exclude_splits": "[]"}


def test_vertex_goes_to_the_entry_point_of_tfx_as_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = recorded("first_run/ExampleGen", tmp_path)
    given["outputs"]["outputFile"] = "gs://bucket/run/executor_output.json"
    before, seen = copy.deepcopy(given), []
    monkeypatch.setattr(kubeflow_v2_run_executor, "_run_executor", lambda *arguments: seen.append(arguments))

    assert run("first_run/ExampleGen", "Witness", tmp_path, given) == 0

    [(arguments, beam_args)] = seen
    assert json.loads(arguments.json_serialized_invocation_args) == before
    assert json.loads(arguments.json_serialized_inputs_spec_args) == COMPONENTS["ExampleGen"]
    assert beam_args == ["--beam_plugin=pipeline.beam_compat"]


@pytest.mark.parametrize("component", [Baseline, CuratedSchema])
def test_a_plain_function_stands_for_each_of_our_small_components(component: Any) -> None:
    executor = component.EXECUTOR_SPEC.executor_class
    function = getattr(plain, _PLAIN[name_utils.get_full_name(executor)])

    assert inspect.signature(function).parameters.keys() == inspect.signature(executor._FUNCTION).parameters.keys()


def test_a_plain_function_costs_no_tensorflow(tmp_path: Path) -> None:
    given = recorded("first_run/Baseline", tmp_path)
    given["inputs"]["parameterValues"]["destination"] = str(tmp_path / "pushed")
    program = (
        "import sys; from pipeline.kubeflow_entrypoint import main; assert main(sys.argv[1:]) == 0; "
        "print([name for name in ('tensorflow', 'apache_beam', 'tfx') if name in sys.modules])"
    )

    done = subprocess.run(
        [
            *(sys.executable, "-c", program, "--executor_class_path=pipeline.baseline.Baseline_Executor"),
            *("--json_serialized_invocation_args", json.dumps(given), f"--mounts={tmp_path}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "[]\n"
    [model] = output_of("first_run/Baseline", tmp_path)["artifacts"]["model"]["artifacts"]
    assert model["metadata"] == {"absent": 1, "tfx_version": "1.21.0"}
    assert model["uri"].startswith(f"{BUCKET}/prod1/Baseline/")
