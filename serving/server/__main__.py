"""Command line: `python -m serving.server --model-base-path DIR --port P`."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    model_base_path: Annotated[
        Path | None,
        typer.Option(help="Directory with one numeric directory per version.", exists=True, file_okay=False),
    ] = None,
    model_config_file: Annotated[
        Path | None,
        typer.Option(help="Several models: a ModelServerConfig in text form.", exists=True, dir_okay=False),
    ] = None,
    model_config_file_poll_seconds: Annotated[
        float, typer.Option(help="How often that file is read again; 0: never.", min=0)
    ] = 0.0,
    port: Annotated[int, typer.Option(help="gRPC port; 0 picks a free one.", min=0, max=65535)] = 8500,
    model_name: Annotated[str | None, typer.Option(help="Name in requests [default: the directory's name].")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    num_versions: Annotated[int, typer.Option(help="How many of the newest versions to serve.", min=1)] = 2,
    poll_seconds: Annotated[float, typer.Option(help="How often to look for new versions.", min=0.01)] = 1.0,
    threads: Annotated[int, typer.Option(help="Requests at a time; 0 for four per core.", min=0)] = 0,
    max_queued: Annotated[int, typer.Option(help="Requests that wait; more are refused.", min=0)] = 256,
    max_message_bytes: Annotated[int, typer.Option(help="The largest request.", min=1, max=2**31 - 1)] = 2**31 - 1,
    rest_port: Annotated[
        int | None, typer.Option(help="REST API and Prometheus page; 0 picks a free one; none by default.", min=0)
    ] = None,
    ssl_config_file: Annotated[
        Path | None, typer.Option(help="TLS: an SSLConfig in text form, with PEM contents.", exists=True)
    ] = None,
    enable_batching: Annotated[bool, typer.Option("--enable-batching", help="Join requests.")] = False,
    batching_parameters_file: Annotated[
        Path | None, typer.Option(help="How: BatchingParameters in text form.", exists=True)
    ] = None,
    intra_op_threads: Annotated[int, typer.Option(help="Threads inside one op; 0 for one per core.", min=0)] = 1,
    tensor_content: Annotated[
        bool, typer.Option(help="Outputs as raw bytes, or as the repeated fields that TensorFlow Serving sends.")
    ] = True,
    drain_seconds: Annotated[float, typer.Option(help="How long requests may finish after SIGTERM.", min=0)] = 30.0,
) -> None:
    """Serve a model directory over TensorFlow Serving's gRPC API, for development and tests."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("serving.server").setLevel(logging.INFO)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    # TensorFlow takes seconds to import: --help and a mistyped option need not wait for it.
    from serving.server.config import ConfigError
    from serving.server.options import BatchingOptions, read_batching
    from serving.server.server import Server, ServerError

    try:
        batching = BatchingOptions() if enable_batching else None
        if batching_parameters_file is not None:
            if not enable_batching:
                raise ConfigError("--batching-parameters-file needs --enable-batching")
            batching = read_batching(batching_parameters_file)
        server = Server(
            model_base_path,
            model_name,
            port,
            host=host,
            model_config_file=model_config_file,
            config_poll_seconds=model_config_file_poll_seconds,
            num_versions=num_versions,
            poll_seconds=poll_seconds,
            threads=threads or None,
            max_queued=max_queued,
            max_message_bytes=max_message_bytes,
            rest_port=rest_port,
            ssl_config_file=ssl_config_file,
            batching=batching,
            tensor_content=tensor_content,
            intra_op_threads=intra_op_threads,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            # In a thread: a handler runs within the main thread, which may hold the very lock that is needed.
            signal.signal(number, lambda *_: threading.Thread(target=server.request_stop).start())
        # What was imported stays: a collection after a version was unloaded takes 1 ms without it and 270 ms with it.
        gc.freeze()
        server.start(timeout_seconds=None)
    except (ServerError, ConfigError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if server.versions:
        served = ", ".join(f"{name} (versions {', '.join(map(str, found))})" for name, found in server.served.items())
        rest = f", http://{host}:{server.rest_port}" if rest_port is not None else ""
        typer.echo(f"ready: {served} on grpc://{server.address}{rest}")
        sys.stdout.flush()
    server.wait()
    server.stop(drain_seconds)


if __name__ == "__main__":
    app()
