"""What needs no model starts without TensorFlow and Keras, whose imports take ten seconds."""

import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import SHIPPED

COMMANDS = """
import sys
from pathlib import Path
from tfctr.cli import app
out = Path(sys.argv[1])
for arguments in (
    ["--help"],
    ["models"],
    ["models", "--json"],
    ["features", "schema"],
    ["features", "show", sys.argv[2]],
    ["features", "validate", sys.argv[2]],
    ["data", "synthesize", "--out", out, "--rows", "600", "--users", "20", "--items", "60"],
    ["data", "check", out, "--features", sys.argv[2]],
):
    app([str(argument) for argument in arguments], standalone_mode=False)
    print("loaded by", arguments, ":", sorted({"tensorflow", "keras"} & set(sys.modules)))
"""


def test_no_tensorflow(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMMANDS, str(tmp_path / "data"), str(SHIPPED[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = [line for line in done.stdout.splitlines() if line.startswith("loaded by")]
    assert len(loaded) == 8
    assert all(line.endswith(": []") for line in loaded), loaded
    assert "No fault found in the rows read" in done.stdout
