"""Build definition: one distribution with the library, the pipeline and the server.

Beam workers and containers import all three by dotted path, so they are packaged together.
"""

from setuptools import find_packages, setup

BASE = [
    "cachetools>=5",
    "fsspec>=2025.3",
    "google-crc32c>=1.5",
    "grpcio>=1.76",
    "numpy>=1.26",
    "protobuf>=6,<7",
    "pydantic>=2.9",
    "pydantic-core>=2.23",
    "pyyaml>=6",
    "rich>=13",
    "typer>=0.19",
    "typing-extensions>=4.12",
]
SERVING = [
    "aiohttp>=3.10",  # the REST API
    "grpcio-health-checking>=1.76,<1.77",  # newer ones need protobuf 7, which TensorFlow does not allow
    "tensorflow>=2.21,<2.22",
    "tensorflow-serving-api>=2.19",
]
DATA = ["pyarrow>=14"]
# An export writes its warm-up requests in the messages of the serving API.
# The report is a page (jinja2) with pictures (matplotlib).
# `tfctr tune` has its methods from keras-tuner, whose Gaussian process is that of scikit-learn.
TRAIN = [
    *SERVING,
    *DATA,
    "jinja2>=3.1",
    "keras>=3.15",
    "keras-tuner[bayesian]>=1.4.8,<1.5",
    "markupsafe>=2.1",
    "matplotlib>=3.9",
    "tensorboard>=2.20",
]
EXTRAS = {
    "data": DATA,
    "train": TRAIN,
    "pipeline": [
        *TRAIN,
        "absl-py>=1",
        "apache-beam>=2.47,<3",
        "kfp==2.16.1",
        "ml-metadata>=1.17,<1.22",
        "ml-pipelines-sdk==1.21.0",
        "tensorflow-metadata>=1.21,<1.22",
        "tensorflow-model-analysis>=0.52,<0.53",
        "tensorflow-transform>=1.21,<1.22",
        "tfx==1.21.0",
    ],
    "serving": SERVING,
    # For examples/retrieve_and_rank.py; it runs on Keras 2 (tf-keras), in processes of its own.
    "retrieval": [*SERVING, *DATA, "tensorflow-recommenders>=0.7.7", "tf-keras>=2.21,<2.22"],
    "redis": ["redis>=5"],
    "metrics": ["prometheus-client>=0.20"],  # of the client; the server writes the names of TensorFlow Serving
    "tracing": ["opentelemetry-api>=1.27"],
    "s3": ["s3fs>=2025.3"],  # s3:// and minio://
    "dev": [
        "cryptography>=42",  # certificates
        "grpcio-tools>=1.70",
        "hypothesis>=6",
        "jax>=0.10,<0.11",  # the layers run on this backend too
        "keras-rs>=0.4",  # the reference for the cross network
        "kubernetes-validate>=1.31",  # the schemas of the manifests
        "mkdocs-material>=9",
        "griffelib>=2",  # reads the docstrings for the API reference
        "mkdocstrings-python>=2",
        "flask>=3",  # moto's server
        "flask-cors>=5",
        "moto[s3]>=5",  # an S3 store for the tests
        "mypy>=1.15",
        "packaging>=24",
        "pytest>=8",
        "pytest-xdist>=3",
        "ruff>=0.11",
        "scikit-learn>=1.5",
        "tensorflow-data-validation>=1.16,<1.22",
        "tfx-bsl>=1.21,<1.22",
        "opentelemetry-sdk>=1.27",
        "types-cachetools",
        "types-pyyaml",
    ],
}

setup(
    version="0.1.0",
    packages=find_packages(include=["tfctr*", "pipeline*", "serving*"]),
    package_data={"": ["py.typed", "*.pyi", "*.proto", "*.txt", "*.yaml", "*.config", "*.j2"]},
    install_requires=BASE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["tfctr = tfctr.cli:main"]},
)
