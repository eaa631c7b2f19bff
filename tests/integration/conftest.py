"""Servers of the tests' own on this machine: Redis, two S3 stores, and a slow line to them.

They are found on the PATH or beside the Python that runs the tests, listen on free loopback
ports, and are ended by their process ids. Where a program is missing its tests are skipped by
name.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

PATIENCE_S = 15.0
HOST = "127.0.0.1"

OWNER = ("owner-access-key-01", "owner-secret-key-0001")
READER = ("reader-access-key-01", "reader-secret-key-0001")
_ACTIONS = {OWNER: ["Admin", "Read", "Write", "List", "Tagging"], READER: ["Read", "List"]}

# Further ports of SeaweedFS are its ports and this.
_GRPC_OFFSET = 10_000


def program(name):
    """Return where a program is, or skip the test."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def free_ports(number):
    """Return ports that nobody listens on, whose partners above are free as well."""
    ports = []
    with contextlib.ExitStack() as stack:
        while len(ports) < number:
            sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
            sockets[0].bind((HOST, 0))
            port = sockets[0].getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                sockets[1].bind((HOST, port - _GRPC_OFFSET))
                ports.append(port - _GRPC_OFFSET)
    return ports


def listens(port):
    """Return whether somebody accepts connections at a port of this machine."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=0.5):
        return True
    return False


class Server:
    """A program that listens on a port; it can be killed, and started again at the same one."""

    def __init__(self, command, *, port, log):
        self.port = port
        self._command, self._log = list(map(str, command)), log
        self._process = None

    def start(self):
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_S
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"{self._command[0]} did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.01)
        return self

    def is_ready(self):
        return listens(self.port)

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class RedisServer(Server):
    """A Redis that keeps everything in memory."""

    def __init__(self, directory, *options):
        [port] = free_ports(1)
        command = [
            program("redis-server"), "--port", port, "--bind", HOST, "--save", "",
            "--appendonly", "no", "--dir", directory, *options,
        ]  # fmt: skip
        super().__init__(command, port=port, log=directory / "redis.log")

    @property
    def url(self):
        return f"redis://{HOST}:{self.port}"

    def client(self, **options):
        import redis

        return contextlib.closing(redis.Redis(host=HOST, port=self.port, **options))


class S3Server(Server):
    """A store with S3's protocol and the bucket ``answers``."""

    bucket = "answers"

    def __init__(self, command, *, port, log, keys=OWNER):
        super().__init__(command, port=port, log=log)
        self._keys = keys

    def client(self, keys=None, **options):
        return s3_client(f"http://{HOST}:{self.port}", keys or self._keys, **options)

    def is_ready(self):
        from botocore.exceptions import BotoCoreError, ClientError

        if not listens(self.port):
            return False
        try:
            self.make_bucket()
        except (BotoCoreError, ClientError):
            return False
        return True

    def make_bucket(self):
        with contextlib.closing(self.client()) as client:
            if self.bucket not in [each["Name"] for each in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=self.bucket)
            client.put_object(Bucket=self.bucket, Key="ready", Body=b"")


def s3_client(url, keys, *, timeout_s=5.0):
    """Return a boto3 client that makes one attempt."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
        region_name="us-east-1",
        config=Config(
            max_pool_connections=32,
            retries={"total_max_attempts": 1},
            connect_timeout=timeout_s,
            read_timeout=timeout_s,
            s3={"addressing_style": "path"},
        ),
    )


def seaweed(directory):
    """Return a SeaweedFS, which knows conditional writes and permissions."""
    ports = iter(free_ports(6))
    port = next(ports)
    identities = [
        {
            "name": keys[0].partition("-")[0],
            "credentials": [{"accessKey": keys[0], "secretKey": keys[1]}],
            "actions": actions,
        }
        for keys, actions in _ACTIONS.items()
    ]
    config = directory / "identities.json"
    config.write_text(json.dumps({"identities": identities}))
    (directory / "data").mkdir()
    command = [
        program("weed"), "mini", f"-dir={directory / 'data'}", f"-ip={HOST}", f"-ip.bind={HOST}",
        "-webdav=false", "-admin.ui=false", "-master.telemetry=false", f"-s3.config={config}",
        f"-s3.port={port}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false",
        *(f"-{part}.port={next(ports)}" for part in ("master", "volume", "filer", "admin")),
        f"-metricsPort={next(ports)}",
    ]  # fmt: skip
    return S3Server(command, port=port, log=directory / "weed.log")


def rclone(directory):
    """Return an rclone, which ignores the conditions of a write."""
    [port] = free_ports(1)
    (directory / "data").mkdir()
    command = [
        program("rclone"), "serve", "s3", "--auth-key", ",".join(OWNER),
        "--addr", f"{HOST}:{port}", f"--config={directory / 'rclone.conf'}", directory / "data",
    ]  # fmt: skip
    return S3Server(command, port=port, log=directory / "rclone.log")


class SlowLine:
    """A loopback address that passes everything on to a port; answers may be late.

    Attributes
    ----------
    delay_s : float
        How late each piece of an answer arrives from now on.
    cuts : int
        How many of the next answers are lost, and their connections with them.
    """

    def __init__(self, port):
        self.delay_s, self.cuts = 0.0, 0
        self._target = port
        self._over = threading.Event()
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self):
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((HOST, self._target))
                for one, other, is_answer in ((near, far, False), (far, near, True)):
                    thread = threading.Thread(target=self._pass_on, args=(one, other, is_answer))
                    self._threads.append(thread)
                    thread.start()

    def _pass_on(self, source, target, is_answer):
        with contextlib.suppress(OSError), source:
            source.settimeout(0.05)
            while not self._over.is_set():
                try:
                    data = source.recv(65_536)
                except TimeoutError:
                    continue
                if is_answer:
                    self._over.wait(self.delay_s)
                if is_answer and data and self.cuts:
                    self.cuts -= 1
                    data = b""
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    break
                target.sendall(data)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    """One Redis for all tests that leave it running; emptied by `redis_url`."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture
def redis_url(redis_server):
    """The address of an empty Redis."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def own_redis(tmp_path):
    """Makes a Redis of the test's own, not started yet; ``own_redis(*options)``."""
    servers = []

    def make(*options):
        directory = tmp_path / f"redis {len(servers)}"
        directory.mkdir()
        servers.append(RedisServer(directory, *options))
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


STORES = {"seaweed": seaweed, "rclone": rclone}


@pytest.fixture(scope="session")
def _s3_servers(tmp_path_factory):
    servers = {}

    def get(name):
        if name not in servers:
            servers[name] = STORES[name](tmp_path_factory.mktemp(name)).start()
        return servers[name]

    yield get
    for server in servers.values():
        server.kill()


@pytest.fixture(params=list(STORES))
def s3_server(request, _s3_servers):
    """Each of the S3 stores."""
    pytest.importorskip("boto3")
    return _s3_servers(request.param)


@pytest.fixture
def seaweed_server(_s3_servers):
    """The S3 store with conditions and permissions."""
    pytest.importorskip("boto3")
    return _s3_servers("seaweed")


@pytest.fixture
def own_s3(tmp_path):
    """An S3 store of the test's own, not started yet."""
    pytest.importorskip("boto3")
    server = rclone(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def slow_line():
    """Makes a slow line to a port; ``slow_line(port)``."""
    lines = []

    def make(port):
        lines.append(SlowLine(port))
        return lines[-1]

    yield make
    for line in lines:
        line.close()


@pytest.fixture
def composed():
    """Returns the port of a service of docker-compose.yml; skips the test if it does not run."""

    def find(name, port):
        port = int(os.environ.get(f"{name.upper()}_PORT", port))
        if not listens(port):
            pytest.skip(f"{name} of docker-compose.yml does not run; see `task docker:start`")
        return port

    return find


@pytest.fixture
def composed_s3():
    """Returns the S3 store of docker-compose.yml at a port."""
    keys = (
        os.environ.get("MINIO_ROOT_USER", "lbgpt-local"),
        os.environ.get("MINIO_ROOT_PASSWORD", "for-this-machine-only"),
    )

    def find(port):
        server = S3Server([], port=port, log=None, keys=keys)
        server.make_bucket()
        return server

    return find


@pytest.fixture
def in_child():
    """Runs a function in a forked child and waits for its good end."""

    def run(work):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0

    return run
