"""A real S3 store on a free port, and the places that tests write to."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from tfctr.storage.systems import file_system

BUCKET = "models"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    # The store of the tests does not know the checksums that newer clients send by themselves.
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}


@contextmanager
def s3_store() -> Iterator[dict[str, str]]:
    """A store with an empty bucket; yields the environment by which clients find it, in this process set already."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        _forget_clients()
        file_system("s3").makedirs(BUCKET, exist_ok=True)
        yield environment
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        _forget_clients()
        server.stop()


def new_place(scheme: str) -> str:
    """A directory of a store that nothing has written to."""
    return f"{scheme}://{BUCKET}/{uuid.uuid4().hex}"


def _forget_clients() -> None:
    """A client keeps the address of the store that it was made for."""
    type(file_system("s3")).clear_instance_cache()
    file_system.cache_clear()
