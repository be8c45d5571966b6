"""Build definition: one distribution with the library, the pipeline and the server.

Beam workers and containers import all three by dotted path, so they are packaged together.
"""

from setuptools import find_packages, setup

BASE = [
    "numpy>=1.26",
    "pydantic>=2.9",
    "pyyaml>=6",
    "typer>=0.15",
    "rich>=13",
    "grpcio>=1.70",
    "protobuf>=6,<7",
]
# The embedded server; an export writes its warm-up requests in the same messages.
SERVING = ["tensorflow>=2.21,<2.22", "tensorflow-serving-api>=2.19"]
TRAIN = [*SERVING, "keras>=3.15", "keras-rs>=0.4", "tensorboard>=2.20"]
EXTRAS = {
    "train": TRAIN,
    "pipeline": [*TRAIN, "tfx==1.21.0", "kfp==2.16.1"],
    "serving": SERVING,
    "redis": ["redis>=5"],
    "dev": [
        "cryptography>=42",  # tests only: certificates
        "hypothesis>=6",
        "jax>=0.10,<0.11",  # tests only: the layers run on this backend too
        "mkdocs-material>=9",
        "mypy>=1.15",
        "pytest>=8",
        "pytest-xdist>=3",
        "ruff>=0.11",
        "scikit-learn>=1.5",
        "types-pyyaml",
        "grpcio-tools>=1.70",
        "kubernetes-validate>=1.31",  # tests only: the schemas of the manifests
    ],
}

setup(
    version="0.1.0",
    packages=find_packages(include=["tfctr*", "pipeline*", "serving*"]),
    package_data={"": ["py.typed", "*.pyi", "*.proto", "*.txt", "*.yaml", "*.config"]},
    install_requires=BASE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["tfctr = tfctr.cli:main"]},
)
