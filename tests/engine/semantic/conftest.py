"""Entries, an embedder, and a server that stands in for Qdrant."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from lbgpt_pandas.engine.semantic.base import SemanticEntry


class GivenVectors:
    """An embedder in name only: the tests make their vectors themselves."""

    name = "given vectors"

    async def embed(self, texts, *, engine):
        raise AssertionError("nothing is to be embedded here")


@pytest.fixture
def embedder():
    return GivenVectors()


@pytest.fixture
def vectors():
    """Return rows of length 1, the same for the same numbers."""
    numpy = pytest.importorskip("numpy")

    def make(number, dimension=16, seed=0):
        drawn = numpy.random.default_rng(seed).standard_normal((number, dimension))
        drawn /= numpy.linalg.norm(drawn, axis=1, keepdims=True)
        return drawn.astype(numpy.float32)

    return make


@pytest.fixture
def entries(vectors):
    """Return entries with keys k0, k1 ..., texts t0 ... and envelopes e0 ..."""

    def make(number, *, first=0, scope="s", dimension=16, seed=0):
        rows = vectors(first + number, dimension, seed)[first:]
        return [
            SemanticEntry(f"k{at}", scope, f"t{at}", f"e{at}", row)
            for at, row in enumerate(rows, first)
        ]

    return make


class StandIn(BaseHTTPRequestHandler):
    """The REST interface of Qdrant as far as the cache uses it, over qdrant-client's local mode."""

    protocol_version = "HTTP/1.1"

    def handle_any(self):
        server = self.server
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        path = urlsplit(self.path).path
        with server.one_at_a_time:
            server.seen.append((self.command, self.path, dict(self.headers), body))
        server.gate.wait(10)
        if self.headers.get("api-key") != server.api_key:
            return self.answer(401, {"status": {"error": "Must provide an API key"}})
        if server.failure is not None:
            return self.answer(*server.failure)
        with server.one_at_a_time:
            try:
                result = self.work(path.split("/")[2], "/".join(path.split("/")[3:]), body)
            except ValueError as error:
                status = 404 if "not found" in str(error) else 409
                return self.answer(status, {"status": {"error": str(error)}})
        return self.answer(200, {"result": result, "status": "ok", "time": 0.001})

    def work(self, name, what, body):
        from qdrant_client import models

        client = self.server.client
        done = {"operation_id": 0, "status": "completed"}
        match self.command, what:
            case "GET", "exists":
                result = {"exists": client.collection_exists(name)}
            case "GET", "":
                result = json.loads(client.get_collection(name).model_dump_json())
            case "PUT", "":
                size = models.VectorParams.model_validate(body["vectors"])
                result = client.create_collection(name, vectors_config=size)
            case "PUT", "index":
                client.get_collection(name)
                result = done
            case "PUT", "points":
                points = [models.PointStruct.model_validate(one) for one in body["points"]]
                client.upsert(name, points, update_mode=body.get("update_mode"))
                result = done
            case "POST", "points":
                found = client.retrieve(name, body["ids"], with_payload=body["with_payload"])
                result = [one.model_dump() for one in found]
            case "POST", "points/delete":
                client.delete(name, models.PointIdsList(points=body["points"]))
                result = done
            case "POST", "points/count":
                result = client.count(name).model_dump()
            case "POST", "points/scroll":
                records, offset = client.scroll(
                    name, limit=body["limit"], offset=body.get("offset"), with_payload=True
                )
                points = [one.model_dump() for one in records]
                result = {"points": points, "next_page_offset": offset}
            case "POST", "points/query/batch":
                queries = [models.QueryRequest.model_validate(one) for one in body["searches"]]
                answers = client.query_batch_points(name, queries)
                result = [one.model_dump() for one in answers]
            case _:
                raise AssertionError(f"{self.command} {what} is not used")
        return result

    def answer(self, status, content):
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *arguments):
        pass


for method in ("GET", "PUT", "POST", "DELETE"):
    setattr(StandIn, f"do_{method}", StandIn.handle_any)


class Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, request, client_address):
        """Say nothing: clients that gave up waiting are part of the tests."""


@pytest.fixture
def stand_in():
    """A server on this machine with `url`, `client`, `seen`, `api_key`, `failure`, `gate`."""
    qdrant_client = pytest.importorskip("qdrant_client")
    with Server(("127.0.0.1", 0), StandIn) as server:
        server.client = qdrant_client.QdrantClient(":memory:")
        server.one_at_a_time = threading.Lock()
        server.seen, server.api_key, server.failure = [], None, None
        server.gate = threading.Event()
        server.gate.set()
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()
        server.client.close()
