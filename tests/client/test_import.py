import subprocess
import sys

import pytest

SCRIPT = """
import sys, time
for name in ("tensorflow", "keras", "tf_keras", "torch", "jax", "redis", "tensorflow_serving", "pandas"):
    sys.modules[name] = None
start = time.process_time()
import tfctr.client
print(time.process_time() - start)
"""


def test_client_imports_without_tensorflow_in_half_a_second() -> None:
    """CPU seconds, the best of five fresh processes: the machine may be busy, the import may not be slow."""
    seconds = [
        float(subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True).stdout)
        for _ in range(5)
    ]
    assert min(seconds) < 0.5, seconds


@pytest.mark.e2e
def test_our_messages_live_beside_tensorflows_in_one_process() -> None:
    """Ours first; test_protos.py imports TensorFlow's first."""
    script = "import tfctr.client, tensorflow, tensorflow_serving.apis.predict_pb2 \n"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
