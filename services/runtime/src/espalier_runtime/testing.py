"""A real S3 server in a process of its own, for tests, where moto's is installed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pyarrow.fs as pafs

_SECONDS = 30


@contextmanager
def s3_server() -> Iterator[str | None]:
    """Yields the server's address, or None where there is none to start; stops it at the end."""
    program = Path(sys.executable).with_name("moto_server")
    if not program.exists():
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [str(program), "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{port}" if _answers(server, port) else None
    finally:
        server.terminate()
        server.wait(timeout=10)


def s3_environment(endpoint: str) -> Mapping[str, str]:
    """Returns the variables by which a client finds the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }


def s3_bucket(endpoint: str) -> str:
    """Makes a bucket and returns its URI; the variables must be set."""
    bucket = f"bucket-{uuid.uuid4().hex}"
    host = endpoint.removeprefix("http://")
    pafs.S3FileSystem(endpoint_override=host, scheme="http", allow_bucket_creation=True).create_dir(bucket)
    return f"s3://{bucket}"


@contextmanager
def s3_store() -> Iterator[str | None]:
    """Yields the URI of a store on a server of its own, with the variables set by which clients find it, or None."""
    with s3_server() as endpoint:
        if endpoint is None:
            yield None
            return
        with mock.patch.dict(os.environ, s3_environment(endpoint)):
            yield s3_bucket(endpoint) + "/store"


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + _SECONDS
    while server.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.1)
    return False
