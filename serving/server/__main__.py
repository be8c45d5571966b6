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

from serving.server.logs import LogFormat, set_up
from tfctr import MODEL_NAME

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    model_base_path: Annotated[
        Path | None,
        typer.Option(help="Directory with one numeric directory for each version.", exists=True, file_okay=False),
    ] = None,
    model_config_file: Annotated[
        Path | None,
        typer.Option(help="For several models: a ModelServerConfig in text format.", exists=True, dir_okay=False),
    ] = None,
    model_config_file_poll_seconds: Annotated[
        float, typer.Option(help="How often to read that file again; 0: never.", min=0)
    ] = 0.0,
    port: Annotated[int, typer.Option(help="gRPC port; 0 picks a free one.", min=0, max=65535)] = 8500,
    model_name: Annotated[str, typer.Option(help="Name of the model in requests.")] = MODEL_NAME,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all addresses.")] = "127.0.0.1",
    num_versions: Annotated[int, typer.Option(help="How many of the newest versions to serve.", min=1)] = 2,
    poll_seconds: Annotated[float, typer.Option(help="How often to look for new versions.", min=0.01)] = 1.0,
    threads: Annotated[int, typer.Option(help="Number of concurrent requests; 0: four per core.", min=0)] = 0,
    max_queued: Annotated[
        int, typer.Option(help="Number of complete requests that wait to run; more are refused.", min=0)
    ] = 256,
    max_receiving: Annotated[
        int, typer.Option(help="Number of incomplete requests; one more takes the place of the oldest.", min=1)
    ] = 512,
    max_message_bytes: Annotated[int, typer.Option(help="Size of a request.", min=1, max=2**31 - 1)] = 64 * 2**20,
    max_bytes_in_flight: Annotated[int, typer.Option(help="Size of all requests in progress together.", min=1)] = 2**30,
    max_rows: Annotated[int, typer.Option(help="Rows (dimension 0) of an input.", min=1)] = 4096,
    max_elements: Annotated[
        int, typer.Option(help="Elements of all inputs of a request together, also those that it leaves out.", min=1)
    ] = 2**22,
    max_string_bytes: Annotated[int, typer.Option(help="Bytes of all strings of a request together.", min=1)] = 2**24,
    receive_seconds: Annotated[float, typer.Option(help="Seconds in which a request has to arrive.", min=0.1)] = 10.0,
    request_seconds: Annotated[
        float, typer.Option(help="Seconds in which a request has to be answered.", min=0.1)
    ] = 60.0,
    rest_port: Annotated[
        int | None,
        typer.Option(
            help="Port of the REST API and the Prometheus metrics; 0 picks a free one; default: no REST.", min=0
        ),
    ] = None,
    ssl_config_file: Annotated[
        Path | None,
        typer.Option(help="For TLS: an SSLConfig in text format, with the contents of PEM files.", exists=True),
    ] = None,
    allow_reload: Annotated[
        bool, typer.Option("--allow-reload", help="Let any caller replace the configuration of the models.")
    ] = False,
    enable_batching: Annotated[bool, typer.Option("--enable-batching", help="Combine requests into batches.")] = False,
    batching_parameters_file: Annotated[
        Path | None, typer.Option(help="BatchingParameters in text format.", exists=True)
    ] = None,
    intra_op_threads: Annotated[int, typer.Option(help="Threads for one operation; 0: one per core.", min=0)] = 1,
    tensor_content: Annotated[
        bool, typer.Option(help="Send outputs as raw bytes, or as repeated fields like TensorFlow Serving.")
    ] = True,
    drain_seconds: Annotated[
        float, typer.Option(help="Seconds that requests may take to finish after SIGTERM.", min=0)
    ] = 30.0,
    log_format: Annotated[LogFormat, typer.Option(help="How the lines of the log are written.")] = LogFormat.TEXT,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log a line for each request.")] = False,
) -> None:
    """Serve a model directory with TensorFlow Serving's gRPC API, for development and tests."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    set_up(log_format)
    # Imported here, so that --help and a mistyped option do not wait seconds for the import of TensorFlow.
    from serving.server.admission import Limits
    from serving.server.config import ConfigError
    from serving.server.engine import RequestLimits
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
            limits=Limits(
                threads,
                max_queued,
                max_receiving,
                max_message_bytes,
                max_bytes_in_flight,
                receive_seconds,
                request_seconds,
            ),
            request_limits=RequestLimits(max_rows, max_elements, max_string_bytes),
            rest_port=rest_port,
            ssl_config_file=ssl_config_file,
            allow_reload=allow_reload,
            access_log=access_log,
            batching=batching,
            tensor_content=tensor_content,
            intra_op_threads=intra_op_threads,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            # In a thread, because the handler runs in the main thread, which may hold the lock that is needed here.
            signal.signal(number, lambda *_: threading.Thread(target=server.request_stop).start())
        # Imported objects are never freed, so garbage collection skips them. Collecting an unloaded version then takes
        # 1 ms instead of 270 ms.
        gc.freeze()
        server.start(timeout_seconds=None)
    except (ServerError, ConfigError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if server.versions:
        served = ", ".join(f"{name} (versions {', '.join(map(str, found))})" for name, found in server.served.items())
        rest = f", http://{host}:{server.rest_port}" if rest_port is not None else ""
        ready = f"ready: {served} on grpc://{server.address}{rest}"
        if log_format is LogFormat.JSON:
            logging.getLogger("serving.server").info(ready)
        else:
            typer.echo(ready)
            sys.stdout.flush()
    server.wait()
    server.stop(drain_seconds)
    sys.stdout.flush()
    logging.shutdown()
    # Threads that still load or compute in TensorFlow cannot be stopped, and Python would wait for them.
    os._exit(0)


if __name__ == "__main__":
    app()
