"""Compiles wire.proto.

Generated code runs with the protobuf version that it was generated for and newer ones, but not with older ones. The oldest
version that tfctr allows is 6.30. The committed files are therefore generated with grpcio-tools 1.72, in a separate
environment:

    python3 -m venv /tmp/protoc && /tmp/protoc/bin/pip install grpcio-tools==1.72.2 setuptools
    /tmp/protoc/bin/python tfctr/client/protos/generate.py
"""

import subprocess
import sys
from pathlib import Path

PROTO = "tfctr/client/protos/wire.proto"


def generate(out: Path) -> None:
    """Writes `wire_pb2.py`, `wire_pb2.pyi` and the descriptor set `wire.pb` under `out`.

    Args:
        out: root directory. The files are written to `out/tfctr/client/protos`, the descriptor set to `out` itself.

    Raises:
        subprocess.CalledProcessError: protoc printed an error, or grpcio-tools is not installed.
    """
    root = Path(__file__).parents[3]
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            f"--proto_path={root}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            f"--descriptor_set_out={out / 'wire.pb'}",
            PROTO,
        ],
        check=True,
    )
    stub = out / PROTO.replace(".proto", "_pb2.pyi")
    stub.write_text("# mypy: ignore-errors\n" + stub.read_text())


if __name__ == "__main__":
    target = Path(__file__).parents[3]
    generate(target)
    (target / "wire.pb").unlink()
    sys.stdout.write(f"wrote {Path(__file__).parent / 'wire_pb2.py'}\n")
