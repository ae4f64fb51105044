"""A server on this machine with the interface of Amazon S3."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import pytest

BUCKET = "faces"


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Start a server with an empty bucket and point the environment to it.

    Yields:
        The URL of the bucket.
    """
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        with pytest.MonkeyPatch.context() as monkeypatch:
            for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
                monkeypatch.delenv(name, raising=False)
            environment = {
                "AWS_ENDPOINT_URL": f"http://{host}:{port}",
                "AWS_ACCESS_KEY_ID": "test-key",
                "AWS_SECRET_ACCESS_KEY": "test-secret",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_CONFIG_FILE": "/dev/null",
                "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
                "AWS_EC2_METADATA_DISABLED": "true",
                "NO_PROXY": "127.0.0.1",
            }
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            connect().call_s3("create_bucket", Bucket=BUCKET)
            yield f"s3://{BUCKET}"
    finally:
        server.stop()


def connect():
    """A client of the server that does not share connections with authface."""
    import s3fs

    return s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
