"""Executors that stand in for those of the components when recorded inputs are run."""

import json
import os
import signal
from typing import Any

from tfx.components.evaluator import executor as evaluator
from tfx.dsl.components.base import base_executor
from typing_extensions import override

from tfctr.errors import UserError


class Witness(base_executor.BaseExecutor):
    """Leaves what it was given in the first output, or beside it where that is a file."""

    @override
    def Do(self, inputs: dict[str, Any], outputs: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        told = {
            "inputs": {name: [[a.type_name, a.uri, a.id] for a in given] for name, given in inputs.items()},
            "outputs": {name: [[a.type_name, a.uri] for a in given] for name, given in outputs.items()},
            "properties": exec_properties,
        }
        for [artifact] in outputs.values():
            if artifact.type_name == "String":
                artifact.value = "written"
            else:
                with open(os.path.join(artifact.uri, "witness.json"), "w") as file:
                    json.dump(told, file)


class Judge(evaluator.Executor):
    """An Evaluator that names both models, as TFX's does."""

    @override
    def Do(self, inputs: dict[str, Any], outputs: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        [blessing], [model] = outputs["blessing"], inputs["model"]
        blessing.set_string_custom_property("current_model", model.uri)
        blessing.set_int_custom_property("current_model_id", model.id)
        for baseline in inputs.get("baseline_model", []):
            blessing.set_string_custom_property("baseline_model", baseline.uri)
            blessing.set_int_custom_property("baseline_model_id", baseline.id)


class Refusing(base_executor.BaseExecutor):
    """Meets a mistake of the user."""

    @override
    def Do(self, inputs: dict[str, Any], outputs: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        raise RuntimeError("a step of Beam") from UserError("column 'click': has the value 2")


class Failing(base_executor.BaseExecutor):
    """Meets a mistake of ours."""

    @override
    def Do(self, inputs: dict[str, Any], outputs: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        raise ZeroDivisionError


class Terminated(base_executor.BaseExecutor):
    """Is told to stop."""

    @override
    def Do(self, inputs: dict[str, Any], outputs: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
