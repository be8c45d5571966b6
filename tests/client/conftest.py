from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.connect import CLIENTS, Connect
from tests.client.stub_server import StubServer
from tests.client.toy_model import export_toy_model


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions of the toy model: 1 (tag 11), 2 (tag 22, with other weights) and 3 (with two additional features)."""
    root = tmp_path_factory.mktemp("toy")
    export_toy_model(root / "1", tag=11)
    export_toy_model(root / "2", tag=22, scale=-1.0)
    export_toy_model(root / "3", tag=33, extra_features=True)
    return root


@pytest.fixture
def server(toy_models: Path) -> Iterator[StubServer]:
    with StubServer() as stub:
        stub.load(1, toy_models / "1")
        yield stub


@pytest.fixture(params=CLIENTS)
def connect(request: pytest.FixtureRequest) -> Connect:
    """Creates a client. Tests run with the blocking client and with the asyncio client."""
    return CLIENTS[request.param]
