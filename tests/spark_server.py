"""A Spark Connect server on a free port: Spark 4 itself, where a machine has it and Java 17."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.sail_server import wait_for

_WAIT = 240.0
_MAIN = "org.apache.spark.sql.connect.service.SparkConnectServer"


def spark_home() -> Path:
    """Spark's folder, as SPARK_HOME names it. Skips the test where it or Java is not there."""
    if shutil.which("java") is None:
        pytest.skip("no java: apt-get install default-jre-headless")
    home = os.environ.get("SPARK_HOME")
    if not home or not list(Path(home, "jars").glob("spark-connect_*.jar")):
        pytest.skip("no Spark 4: unpack one, and name its folder in SPARK_HOME")
    return Path(home)


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Its URL, while it runs with what it writes in `folder`; of one that runs already on this
    machine, where SPARK_REMOTE names it."""
    if remote := os.environ.get("SPARK_REMOTE"):
        yield remote
        return
    home = spark_home()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": str(folder),
        "spark.sql.shuffle.partitions": "2",
        "spark.ui.enabled": "false",
    }
    command = ["bash", str(home / "bin" / "spark-submit"), "--master", "local[2]"]
    command += ["--driver-memory", "2g", "--class", _MAIN]
    for name, value in settings.items():
        command += ["--conf", f"{name}={value}"]
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable}
    with (folder / "spark.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "spark-internal"], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            wait_for(port, server, _WAIT)
            yield f"sc://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(60.0)
