"""What is compiled for the two platforms: settings, runtime parameters and the root are where each reads them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import kfp
import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx import v1 as tfx

from pipeline.configs import SOURCES, PipelineConfig
from pipeline.kubeflow_document import check_root
from pipeline.kubeflow_settings import Settings, gigabytes, load_settings
from pipeline.kubeflow_v2_runner import ENTRY_POINT, check_image, compile_pipeline, schema_text, submission
from tests.workbench import ROOT
from tfctr.errors import UserError
from tfctr.features import load_feature_file
from tfctr.training.experiment import Experiment
from tfctr.tuning import Plan

pytestmark = pytest.mark.e2e  # importing TFX takes ten seconds

IMAGE = f"registry.example/tfctr@sha256:{'a' * 64}"
COMPONENTS = {
    *("ExampleGen", "StatisticsGen", "CuratedSchema", "ExampleValidator", "AnomalyGate"),
    *("Transform", "Trainer", "ModelCheck", "Baseline", "Evaluator", "Pusher", "Report"),
}
SETTINGS = {
    "default": {
        "cpu": 2,
        "memory": "4G",
        "environment": {"A": "default", "B": "default"},
        "retries": 1,
        "secrets": [{"name": "store", "environment": {"KEY": "key"}}],
        "image_pull_policy": "IfNotPresent",
        "image_pull_secrets": ["registry"],
    },
    "components": {
        "ExampleGen": {"cpu": 4, "cpu_request": 1, "memory": "8Gi", "memory_request": "4G", "caching": False},
        "Trainer": {
            "accelerator": {"type": "nvidia.com/gpu", "count": 2},
            "environment": {"B": "own"},
            "retries": 3,
            "retry_seconds": 10,
            "timeout_seconds": 3600,
            "secrets": [{"name": "certificate", "mount": "/certificate", "optional": True}],
            "config_maps": [{"name": "map", "environment": {"LEVEL": "level"}, "mount": "/map"}],
            "claims": [{"name": "checkpoints", "mount": "/checkpoints", "sub_path": "tfctr"}],
            "scratch": [{"name": "scratch", "mount": "/scratch", "size": "10Gi"}],
            "labels": {"team": "ranking"},
            "node_selector": {"gpu": "true"},
            "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
            "security": {"run_as_user": 2000},
        },
    },
}


@tfx.orchestration.experimental.exit_handler
def notify(final_status: tfx.dsl.components.Parameter[str]) -> None:
    """Says how a run ended."""


@pytest.fixture(scope="module")
def config() -> PipelineConfig:
    return PipelineConfig(
        root="s3://bucket/tfctr",
        data="s3://bucket/log",
        data_digest="2026-11-27",
        code=dict.fromkeys(SOURCES, ""),
        features=load_feature_file(ROOT / "configs" / "movielens.yaml"),
        experiment=Experiment(),
        checkpoints="/checkpoints",
        pushed="s3://bucket/pushed",
        schema_text='feature { name: "label" type: INT }',
        baseline_is_pushed=True,
        report=True,
        beam_args=("--beam_plugin=pipeline.beam_compat",),
    )


@pytest.fixture(scope="module")
def written(config: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    target = tmp_path_factory.mktemp("kubeflow") / "pipeline.yaml"
    return compile_pipeline(config, IMAGE, target, "kubeflow", Settings.model_validate(SETTINGS))


@pytest.fixture(scope="module")
def specification(written: list[Path]) -> dict[str, Any]:
    return yaml.safe_load(written[0].read_text())


@pytest.fixture(scope="module")
def pods(written: list[Path]) -> dict[str, Any]:
    kubernetes = yaml.safe_load(written[1].read_text())["platforms"]["kubernetes"]
    return kubernetes["deploymentSpec"]["executors"]


@pytest.fixture(scope="module")
def job(config: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    given = {"default": {"cpu": 2}, "components": {"Trainer": {"accelerator": {"type": "NVIDIA_L4"}, "retries": 1}}}
    [target] = compile_pipeline(
        on_vertex(config),
        IMAGE,
        tmp_path_factory.mktemp("vertex") / "pipeline.json",
        "vertex",
        Settings.model_validate(given),
    )
    return json.loads(target.read_text())


def on_vertex(config: PipelineConfig) -> PipelineConfig:
    places = {"root": "gs://bucket/tfctr", "data": "gs://bucket/log", "pushed": "/gcs/bucket/pushed"}
    return replace(config, **places, checkpoints="gs://bucket/checkpoints", baseline_is_pushed=False)


def container(specification: dict[str, Any], name: str) -> dict[str, Any]:
    return specification["deploymentSpec"]["executors"][f"{name}_executor"]["container"]


class TestKubeflow:
    def test_every_component_is_a_container_with_our_entry_point(self, specification: dict[str, Any]) -> None:
        executors = specification["deploymentSpec"]["executors"]
        assert executors.keys() == {f"{name}_executor" for name in COMPONENTS}
        for name in COMPONENTS:
            found = container(specification, name)
            assert (found["image"], found["command"]) == (IMAGE, list(ENTRY_POINT))
            assert "lifecycle" not in found

    def test_the_baseline_is_looked_up_after_the_training_and_never_cached(self, specification: dict[str, Any]) -> None:
        tasks = specification["root"]["dag"]["tasks"]
        assert tasks["Baseline"]["dependentTasks"] == ["Trainer"]
        assert "cachingOptions" not in tasks["Baseline"]
        assert "cachingOptions" not in tasks["Pusher"]
        assert "Baseline" in tasks["Evaluator"]["dependentTasks"]
        assert "AnomalyGate" in tasks["Transform"]["dependentTasks"]
        assert "AnomalyGate" in tasks["Trainer"]["dependentTasks"]

    def test_the_report_follows_the_evaluator_and_is_a_page(self, specification: dict[str, Any]) -> None:
        task = specification["root"]["dag"]["tasks"]["Report"]
        assert {"Evaluator", "Trainer", "Baseline"} <= set(task["dependentTasks"])
        assert "cachingOptions" not in task  # it may say why there is no page, which is another one in the next run
        assert task["inputs"]["parameters"]["data"] == {"componentInputParameter": "data"}
        [output] = specification["components"]["Report"]["outputDefinitions"]["artifacts"].values()
        assert output["artifactType"] == {"schemaTitle": "system.HTML", "schemaVersion": "0.0.1"}

    def test_its_sdk_reads_it(self, written: list[Path], tmp_path: Path) -> None:
        package = tmp_path / "package.yaml"
        package.write_text("".join(path.read_text() for path in written))

        loaded = kfp.components.load_component_from_file(str(package))

        assert loaded.pipeline_spec.default_pipeline_root == "s3://bucket/tfctr"
        assert "Trainer_executor" in loaded.platform_spec.platforms["kubernetes"].deployment_spec.executors

    def test_it_is_a_specification_to_the_last_field(self, specification: dict[str, Any]) -> None:
        parsed = json_format.ParseDict(specification, pipeline_spec_pb2.PipelineSpec())
        deployment = json_format.ParseDict(
            specification["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig()
        )
        assert parsed.schema_version == "2.1.0"
        assert deployment.executors["Trainer_executor"].container.resources.accelerator.count == 2

    def test_documents_are_plain(self, written: list[Path]) -> None:
        # Kubeflow's server reads aliases, people do not.
        assert not any("&id" in path.read_text() for path in written)
        assert written[1].read_text().startswith("---\n")

    def test_the_schema_travels_by_content(self, specification: dict[str, Any], config: PipelineConfig) -> None:
        given = specification["root"]["dag"]["tasks"]["CuratedSchema"]["inputs"]["parameters"]["text"]
        assert given == {"runtimeValue": {"constant": config.schema_text}}


class TestSettings:
    def test_resources(self, specification: dict[str, Any]) -> None:
        assert container(specification, "StatisticsGen")["resources"] == {"cpuLimit": 2.0, "memoryLimit": 4.0}
        assert container(specification, "ExampleGen")["resources"] == {
            "cpuLimit": 4.0,
            "cpuRequest": 1.0,
            "memoryLimit": 8.589934592,
            "memoryRequest": 4.0,
        }
        assert container(specification, "Trainer")["resources"] == {
            "cpuLimit": 2.0,
            "memoryLimit": 4.0,
            "accelerator": {"type": "nvidia.com/gpu", "count": "2"},
        }

    def test_environment(self, specification: dict[str, Any]) -> None:
        assert container(specification, "Trainer")["env"] == [
            {"name": "A", "value": "default"},
            {"name": "B", "value": "own"},
        ]
        assert {"name": "B", "value": "default"} in container(specification, "Pusher")["env"]

    def test_retries_and_caching(self, specification: dict[str, Any]) -> None:
        tasks = specification["root"]["dag"]["tasks"]
        assert tasks["Trainer"]["retryPolicy"] == {
            "maxRetryCount": 3,
            "backoffDuration": "10s",
            "backoffFactor": 2.0,
        }
        assert tasks["Pusher"]["retryPolicy"]["maxRetryCount"] == 1
        assert "cachingOptions" not in tasks["ExampleGen"]
        assert tasks["Trainer"]["cachingOptions"] == {"enableCache": True}

    def test_what_only_kubernetes_has(self, pods: dict[str, Any]) -> None:
        assert pods.keys() == {f"{name}_executor" for name in COMPONENTS}
        store = {"secretName": "store", "optional": False, "keyToEnv": [{"secretKey": "key", "envVar": "KEY"}]}
        assert pods["Pusher_executor"] == {
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True},
            "secretAsEnv": [store],
            "imagePullPolicy": "IfNotPresent",
            "imagePullSecret": [{"secretName": "registry"}],
        }
        assert pods["Trainer_executor"] == {
            "securityContext": {"runAsUser": 2000, "runAsGroup": 1000, "runAsNonRoot": True},
            "secretAsEnv": [store],
            "secretAsVolume": [{"secretName": "certificate", "optional": True, "mountPath": "/certificate"}],
            "configMapAsEnv": [
                {
                    "configMapName": "map",
                    "optional": False,
                    "keyToEnv": [{"configMapKey": "level", "envVar": "LEVEL"}],
                }
            ],
            "configMapAsVolume": [{"configMapName": "map", "optional": False, "mountPath": "/map"}],
            "pvcMount": [{"constant": "checkpoints", "mountPath": "/checkpoints", "subPath": "tfctr"}],
            "emptyDirMounts": [{"volumeName": "scratch", "mountPath": "/scratch", "sizeLimit": "10Gi"}],
            "activeDeadlineSeconds": "3600",
            "podMetadata": {"labels": {"team": "ranking"}},
            "nodeSelector": {"labels": {"gpu": "true"}},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "imagePullPolicy": "IfNotPresent",
            "imagePullSecret": [{"secretName": "registry"}],
        }

    def test_the_example_is_taken(self, config: PipelineConfig, tmp_path: Path) -> None:
        settings = load_settings(ROOT / "configs" / "kubeflow.yaml")
        in_a_store = replace(config, checkpoints="s3://bucket/checkpoints")
        assert compile_pipeline(in_a_store, IMAGE, tmp_path / "pipeline.yaml", "kubeflow", settings)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("default: {cpus: 2}", "default.cpus: unknown key. Allowed: accelerator, "),
            ("default: {memory: 8GB}", "default.memory: "),
            ("components: {Trainer: {retries: -1}}", "components.Trainer.retries: "),
            ("default: {secrets: [{name: store}]}", "default.secrets.0: needs environment, mount or both"),
            ("default: {memory: '8'}", "default.memory: 8 is less than 1Mi; did you mean 8Gi?"),
            ("default: {memory: 0Gi}", "default.memory: 0Gi is too little"),
            ("default: {secrets: [{name: A b, mount: /s}]}", "default.secrets.0.name: "),
            ("default: {environment: {A=B: c}}", "default.environment.A=B"),
            ("default: {tolerations: [{key: a, value: b}]}", "default.tolerations.0: a value goes with"),
            ("default: {tolerations: [{key: a, seconds: 5}]}", "default.tolerations.0: seconds go with"),
            ("default: {security: {run_as_user: 0}}", "default.security: user 0 is root"),
            ("default: {claims: [{name: a, mount: /}]}", "default.claims.0.mount: "),
            ("default: {cpu: true}", "default.cpu: "),
            ("parameters: [features]", "parameters: 'features' can't be given at submission: the feature file is"),
            (
                "parameters: [experiment]",
                "parameters: 'experiment' can't be given at submission: the experiment is compiled into Trainer, "
                "Evaluator and Report; compile again",
            ),
            ("parameters: [date]", "parameters: 'date' can't be given at submission: give the date as data_version"),
        ],
    )
    def test_a_mistake_is_told_with_its_place(self, content: str, message: str, tmp_path: Path) -> None:
        path = tmp_path / "kubeflow.yaml"
        path.write_text(content)
        with pytest.raises(UserError) as error:
            load_settings(path)
        assert str(error.value).startswith(f"{path}: {message}")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("components: {Trainr: {cpu: 2}}", "components.Trainr: no such component. Allowed: AnomalyGate, "),
            ("parameters: [pushed]", "parameters: 'pushed' can't be given anew on vertex. Allowed: data_version"),
            ("default: {node_selector: {a: b}}", "default.node_selector: Vertex AI has no such setting"),
            ("parameters: [data_version, data_version]", "parameters: one stands twice"),
            (
                "components: {Trainer: {accelerator: {type: nvidia.com/gpu}}}",
                "components.Trainer: accelerator.type: must be as vertex names it, NVIDIA_L4",
            ),
            ("default: {cpu: 1, cpu_request: 2}", "default: cpu_request: 2 is more than the limit, cpu: 1"),
            ("default: {memory: 1G, memory_request: 2G}", "default: memory_request: 2G is more than the limit"),
        ],
    )
    def test_so_is_what_the_platform_has_not(
        self, content: str, message: str, config: PipelineConfig, tmp_path: Path
    ) -> None:
        path = tmp_path / "kubeflow.yaml"
        path.write_text(content)
        given = on_vertex(config)
        with pytest.raises(UserError) as error:
            compile_pipeline(given, IMAGE, tmp_path / "pipeline.json", "vertex", load_settings(path))
        assert str(error.value).startswith(f"{path}: {message}")

    def test_two_volumes_at_one_place(self, config: PipelineConfig, tmp_path: Path) -> None:
        claims = {"default": {"claims": [{"name": "a", "mount": "/x"}, {"name": "b", "mount": "/x"}]}}
        with pytest.raises(UserError, match="/x: stands twice"):
            compile_pipeline(
                config, IMAGE, tmp_path / "pipeline.yaml", "kubeflow", Settings.model_validate({**SETTINGS, **claims})
            )

    @pytest.mark.parametrize(("text", "expected"), [("8G", 8.0), ("512Mi", 0.536870912), ("1.5Ti", 1649.267441664)])
    def test_memory(self, text: str, expected: float) -> None:
        assert gigabytes(text) == pytest.approx(expected)


class TestRuntimeParameters:
    def test_they_have_defaults(self, specification: dict[str, Any]) -> None:
        assert specification["root"]["inputDefinitions"]["parameters"] == {
            name: {"parameterType": "STRING", "isOptional": True, "defaultValue": value}
            for name, value in {
                "data": "s3://bucket/log",
                "data_version": "2026-11-27",
                "pushed": "s3://bucket/pushed",
                "checkpoints": "/checkpoints",
            }.items()
        }

    @pytest.mark.parametrize(
        ("task", "parameter", "name"),
        [
            ("ExampleGen", "input_base", "data"),
            ("ExampleGen", "data_version", "data_version"),
            ("Transform", "data", "data"),
            ("Transform", "data_digest", "data_version"),
            ("Trainer", "data", "data"),
            ("Trainer", "checkpoints", "checkpoints"),
            ("Baseline", "destination", "pushed"),
            ("Pusher", "destination", "pushed"),
        ],
    )
    def test_every_task_that_uses_one_is_given_it(
        self, task: str, parameter: str, name: str, specification: dict[str, Any]
    ) -> None:
        found = specification["root"]["dag"]["tasks"][task]["inputs"]["parameters"][parameter]
        assert found == {"componentInputParameter": name}
        defined = specification["components"][task]["inputDefinitions"]["parameters"]
        assert defined[parameter] == {"parameterType": "STRING"}

    def test_a_tuner_is_given_what_the_trainer_is(self, config: PipelineConfig, tmp_path: Path) -> None:
        tuning = Plan.model_validate({"search": {"training.epochs": [1, 2]}, "method": "grid"})
        tuned = replace(config, tuning=tuning, experiment=tuning.experiment)
        claims = SETTINGS["components"]["Trainer"]["claims"]
        with pytest.raises(UserError, match="--checkpoints /checkpoints: no claim of Tuner is mounted there"):
            compile_pipeline(tuned, IMAGE, tmp_path / "x.yaml", "kubeflow", Settings.model_validate(SETTINGS))

        components = {**SETTINGS["components"], "Tuner": {"claims": claims}}
        settings = Settings.model_validate({**SETTINGS, "components": components})
        [target, _] = compile_pipeline(tuned, IMAGE, tmp_path / "pipeline.yaml", "kubeflow", settings)

        tasks = yaml.safe_load(target.read_text())["root"]["dag"]["tasks"]
        for name in ("Tuner", "Trainer"):
            given = tasks[name]["inputs"]["parameters"]
            assert given["data"] == {"componentInputParameter": "data"}
            assert given["checkpoints"] == {"componentInputParameter": "checkpoints"}
        assert tasks["Trainer"]["inputs"]["artifacts"]["hyperparameters"] == {
            "taskOutputArtifact": {"outputArtifactKey": "best_hyperparameters", "producerTask": "Tuner"}
        }

    def test_no_value_stays_where_it_can_not_be_replaced(
        self, specification: dict[str, Any], config: PipelineConfig
    ) -> None:
        # Only in a custom_config, into which the entry point puts the parameter of the same name.
        for name, task in specification["root"]["dag"]["tasks"].items():
            for key, given in task["inputs"].get("parameters", {}).items():
                constant = str(given.get("runtimeValue", {}).get("constant", ""))
                for value in (config.data, config.pushed, config.checkpoints, config.data_digest):
                    if value in constant:
                        assert key == "custom_config"
                        [own] = [own for own, kept in json.loads(constant).items() if kept == value]
                        assert own in specification["components"][name]["inputDefinitions"]["parameters"]

    @pytest.mark.parametrize("offered", [["pushed"], []])
    def test_what_is_not_offered_is_compiled_in(
        self, offered: list[str], config: PipelineConfig, tmp_path: Path
    ) -> None:
        settings = Settings.model_validate({**SETTINGS, "parameters": offered})
        [target, _] = compile_pipeline(config, IMAGE, tmp_path / "pipeline.yaml", "kubeflow", settings)

        found = yaml.safe_load(target.read_text())
        assert found["root"]["inputDefinitions"]["parameters"].keys() == set(offered)
        given = found["root"]["dag"]["tasks"]["ExampleGen"]["inputs"]["parameters"]
        assert given["input_base"] == {"runtimeValue": {"constant": "s3://bucket/log"}}
        assert given["data_version"] == {"runtimeValue": {"constant": "2026-11-27"}}

    def test_they_reach_the_tasks_under_an_exit_handler(self, config: PipelineConfig, tmp_path: Path) -> None:
        handler = notify(final_status=tfx.orchestration.experimental.FinalStatusStr())
        settings = Settings.model_validate(SETTINGS)
        [target, _] = compile_pipeline(
            config, IMAGE, tmp_path / "pipeline.yaml", "kubeflow", settings, exit_handler=handler
        )

        found = yaml.safe_load(target.read_text())
        names = {"data", "data_version", "pushed", "checkpoints"}
        assert found["components"]["tfx-dag"]["inputDefinitions"]["parameters"].keys() == names
        assert found["root"]["dag"]["tasks"]["tfx-dag"]["inputs"]["parameters"] == {
            name: {"componentInputParameter": name} for name in names
        }
        tasks = found["components"]["tfx-dag"]["dag"]["tasks"]
        assert tasks["ExampleGen"]["inputs"]["parameters"]["input_base"] == {"componentInputParameter": "data"}
        assert "cachingOptions" not in tasks["Baseline"]


class TestVertex:
    def test_it_is_a_pipeline_job_with_the_resolver_of_tfx(self, job: dict[str, Any]) -> None:
        json_format.ParseDict(job, pipeline_spec_pb2.PipelineJob())
        assert job["runtimeConfig"]["gcsOutputDirectory"] == "gs://bucket/tfctr"
        executors = job["pipelineSpec"]["deploymentSpec"]["executors"]
        assert any("resolver" in executor for executor in executors.values())
        assert "lifecycle" in executors["ExampleGen_executor"]["container"]
        assert executors["Trainer_executor"]["container"]["command"] == list(ENTRY_POINT)

    def test_settings_are_in_it_too(self, job: dict[str, Any]) -> None:
        specification = job["pipelineSpec"]
        assert container(specification, "ExampleGen")["resources"] == {"cpuLimit": 2.0}
        assert container(specification, "Trainer")["resources"]["accelerator"] == {"type": "NVIDIA_L4", "count": "1"}
        assert specification["root"]["dag"]["tasks"]["Trainer"]["retryPolicy"]["maxRetryCount"] == 1

    def test_only_the_version_of_the_data_is_given_anew(self, job: dict[str, Any]) -> None:
        specification = job["pipelineSpec"]
        assert specification["root"]["inputDefinitions"]["parameters"].keys() == {"data_version"}
        given = specification["root"]["dag"]["tasks"]["ExampleGen"]["inputs"]["parameters"]
        assert given["data_version"] == {"componentInputParameter": "data_version"}
        assert given["input_base"] == {"runtimeValue": {"constant": "gs://bucket/log"}}

    def test_the_schema_travels_by_content(self, job: dict[str, Any]) -> None:
        assert "CuratedSchema" in job["pipelineSpec"]["root"]["dag"]["tasks"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "place", "message"),
        [
            ("pushed", "/models", "--pushed /models: no claim of Baseline is mounted there"),
            ("checkpoints", "/other", "--checkpoints /other: no claim of Trainer is mounted there"),
            ("checkpoints", "/checkpoints2", "no claim of Trainer is mounted there"),
            ("pushed", "models", "--pushed models: a path in a container must be absolute"),
            ("data", "log", "--data log: a path in a container must be absolute"),
            ("pushed", "", "neither a path nor an address"),
            ("data", "s3:/bucket/log", "neither a path nor an address"),
            ("checkpoints", "gss://bucket/x", "gss://: no store has this scheme"),
            ("pushed", "ram://models", "is gone when this process ends"),
        ],
    )
    def test_a_place_that_a_container_would_lose(
        self, name: str, place: str, message: str, config: PipelineConfig, tmp_path: Path
    ) -> None:
        with pytest.raises(UserError, match=message):
            compile_pipeline(
                replace(config, **{name: place}),
                IMAGE,
                tmp_path / "pipeline.yaml",
                "kubeflow",
                Settings.model_validate(SETTINGS),
            )
        assert not (tmp_path / "pipeline.yaml").exists()

    @pytest.mark.parametrize("name", ["data", "pushed", "checkpoints"])
    @pytest.mark.parametrize("place", ["s3://bucket/x", "/models"])
    def test_a_place_that_vertex_does_not_have(
        self, name: str, place: str, config: PipelineConfig, tmp_path: Path
    ) -> None:
        with pytest.raises(UserError, match=f"--{name} {place}: on Vertex AI a container sees gs://"):
            compile_pipeline(replace(on_vertex(config), **{name: place}), IMAGE, tmp_path / "pipeline.json", "vertex")

    def test_a_directory_that_is_not_there(self, config: PipelineConfig, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"--target .*: the directory .* doesn't exist"):
            compile_pipeline(
                config, IMAGE, tmp_path / "no" / "pipeline.yaml", "kubeflow", Settings.model_validate(SETTINGS)
            )

    @pytest.mark.parametrize(
        "root",
        ["pvc://claim", "file:///tmp", "/tmp", "s3://", "s3:///x", "s3://b?endpoint=x", "minio://b/ x", "hdfs://x"],
    )
    def test_a_root_that_kubeflow_can_not_use(self, root: str) -> None:
        with pytest.raises(UserError, match="on kubeflow artifacts lie at minio:// or s3:// or gs://"):
            check_root(root, "kubeflow")

    def test_a_root_that_vertex_can_not_use(self) -> None:
        check_root("s3://bucket", "kubeflow")
        with pytest.raises(UserError, match="on vertex artifacts lie at gs://,"):
            check_root("s3://bucket", "vertex")

    def test_an_image_without_a_digest(self) -> None:
        assert check_image(IMAGE, tag_allowed=False) is None
        with pytest.raises(UserError, match="--image tfctr:1: must end in a digest"):
            check_image("tfctr:1", tag_allowed=False)
        assert "has no digest" in (check_image("tfctr:1", tag_allowed=True) or "")

    def test_a_file_of_the_other_platform(self, config: PipelineConfig, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"must end in \.yaml for kubeflow"):
            compile_pipeline(config, IMAGE, tmp_path / "pipeline.json", "kubeflow")

    def test_a_schema_too_long_for_an_argument(self, config: PipelineConfig, tmp_path: Path) -> None:
        long = replace(config, schema_text="x" * 128 * 1024)
        with pytest.raises(UserError, match=r"CuratedSchema: its parameters take .* most of them 'text'"):
            compile_pipeline(long, IMAGE, tmp_path / "pipeline.yaml", "kubeflow", Settings.model_validate(SETTINGS))

    def test_a_file_that_is_no_schema(self, config: PipelineConfig, tmp_path: Path) -> None:
        (tmp_path / "schema.pbtxt").write_text("no schema")
        with pytest.raises(UserError, match="not a schema"):
            schema_text(tmp_path / "schema.pbtxt", config.features)
        with pytest.raises(UserError, match="no such file"):
            schema_text(tmp_path / "missing.pbtxt", config.features)


def test_the_schema_is_completed_and_loses_its_shapes(config: PipelineConfig, tmp_path: Path) -> None:
    (tmp_path / "schema.pbtxt").write_text('feature { name: "label" type: INT shape { dim { size: 1 } } }')

    text = schema_text(tmp_path / "schema.pbtxt", config.features)

    assert "shape" not in text
    assert 'name: "user_id"' in text


def test_submission_names_the_root() -> None:
    kubeflow = submission("kubeflow", [Path("pipeline.yaml"), Path("pipeline.kubernetes.yaml")], "s3://bucket/tfctr")
    joined, submitted = kubeflow.splitlines()
    assert joined == "cat pipeline.yaml pipeline.kubernetes.yaml > pipeline.package.yaml"
    assert 'create_run_from_pipeline_package("pipeline.package.yaml", ' in submitted
    assert 'pipeline_root="s3://bucket/tfctr"' in submitted
    vertex = submission("vertex", [Path("pipeline.json")], "gs://bucket/tfctr")
    assert 'template_path="pipeline.json", pipeline_root="gs://bucket/tfctr"' in vertex
