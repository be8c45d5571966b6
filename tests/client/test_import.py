import subprocess
import sys
from pathlib import Path

import pytest

import tfctr.client

HEAVY = (
    "tensorflow",
    "tensorflow_serving",
    "keras",
    "tf_keras",
    "torch",
    "jax",
    "pandas",
    "redis",
    "pydantic",
    "yaml",
    "prometheus_client",
)
SCRIPT = f"""
import sys, time
start = time.process_time()
import tfctr.client
print(time.process_time() - start)
found = [name for name in {HEAVY!r} if name in sys.modules]
assert not found, found
"""


def test_the_client_imports_nothing_heavy() -> None:
    """The import takes under half a second, mostly for numpy, grpc and protobuf. The time is printed, not checked."""
    told = [
        subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True).stdout
        for _ in range(3)
    ]
    print(f"CPU seconds of `import tfctr.client`, best of three: {min(map(float, told)):.2f}")


def test_every_public_name_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    assert [name for name in tfctr.client.__all__ if f"{name}`" not in page and f"import {name}" not in page] == []


@pytest.mark.e2e
def test_our_messages_live_beside_tensorflows_in_one_process() -> None:
    """Imports the messages of the client first; test_protos.py imports those of TensorFlow first."""
    script = "import tfctr.client, tensorflow, tensorflow_serving.apis.predict_pb2 \n"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
