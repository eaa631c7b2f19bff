"""Recorded HTTP of the OpenAI and Azure engines, replayed without any network.

The cassettes were recorded against a FakeProvider; to record them anew::

    pytest tests/integration/test_cassettes.py --record-mode=rewrite

A replayed request must have the recorded method, path, query and body. Keys, cookies, names of
organizations and hosts, and everything else that is not needed for that, stay out of the files.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import vcr as vcrpy
import yaml

from lbgpt_pandas.engine.errors import NotFound, QuotaExhausted, RequestError, RunAborted
from lbgpt_pandas.engine.gpt import AzureGPT, ChatGPT
from lbgpt_pandas.testing import FakeProvider, Fault

CASSETTES = Path(__file__).parent / "cassettes"
KEY = "sk-CANARY0123456789abcdef"
HOST = "provider.invalid"

SECRET_HEADERS = [
    "authorization",
    "api-key",
    "x-api-key",
    "openai-organization",
    "openai-project",
    "cookie",
    "set-cookie",
]
KEPT_REQUEST_HEADERS = {"accept", "content-type"}
KEPT_RESPONSE_HEADERS = {
    "apim-request-id",
    "content-type",
    "retry-after",
    "retry-after-ms",
    "x-request-id",
}
SECRETS = re.compile(
    r"CANARY"
    r"|\b(?:sk|pk|rk)-[A-Za-z0-9_-]{8,}"
    r"|\bbearer\s|\bbasic\s+[A-Za-z0-9+/=]{8,}"
    r"|authorization|api[-_]key|openai-(?:organization|project)|\borg-[a-z0-9]"
    r"|cookie|eyJ[A-Za-z0-9_-]{10,}"
    r"|127\.0\.0\.1|localhost|\.azure\.com|/home/|/root/|/work/",
    re.IGNORECASE,
)


def strip_request(request):
    """Point the request at a host that does not exist, and keep what a replay compares."""
    request.uri = re.sub(r"^https?://[^/?]+", f"https://{HOST}", request.uri)
    for name in list(request.headers):
        if name.lower() not in KEPT_REQUEST_HEADERS:
            del request.headers[name]
    return request


def strip_response(response):
    response["headers"] = {
        name: value
        for name, value in response["headers"].items()
        if name.lower() in KEPT_RESPONSE_HEADERS
    }
    return response


SCRUBBED = {
    "match_on": ["method", "path", "query", "body"],
    "filter_headers": SECRET_HEADERS,
    "filter_query_parameters": ["key", "api-key"],
    "before_record_request": strip_request,
    "before_record_response": strip_response,
    "decode_compressed_response": True,
}


@pytest.fixture(scope="module")
def vcr_cassette_dir():
    return str(CASSETTES)


@pytest.fixture
def vcr_config():
    return dict(SCRUBBED)


@pytest.fixture
def address(request, record_mode):
    """Where the engines ask: a FakeProvider while recording, a host that does not exist else."""
    if record_mode == "none":
        yield SimpleNamespace(base_url=f"https://{HOST}/v1", azure_base=f"https://{HOST}")
        return
    with FakeProvider(**getattr(request, "param", {})) as server:
        yield server


def openai_engine(address, **settings):
    return ChatGPT(KEY, base_url=address.base_url, http_client="httpx", **settings)


def azure_engine(address, **settings):
    deployments = {"gpt-4o-mini": "prod"}
    return AzureGPT(KEY, address.azure_base, deployments, http_client="httpx", **settings)


def ask(text, **more):
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


def replayed(cassette, **provider):
    """Marks of a test that replays a cassette with the network blocked."""

    def mark(test):
        test = pytest.mark.parametrize("address", [provider], indirect=True, ids=["replay"])(test)
        test = pytest.mark.default_cassette(cassette)(test)
        return pytest.mark.vcr(pytest.mark.block_network(test))

    return mark


def texts(answers):
    return [answer.choices[0].message.content for answer in answers]


@replayed("openai_chat.yaml")
async def test_openai(address):
    requests = [ask("Where is Rome?"), ask("Where is Oslo?", temperature=0.5, seed=1)]
    answers = await openai_engine(address).achat_completion_list(requests, show_progress=False)
    assert texts(answers) == ["A:Where is Rome?", "A:Where is Oslo?"]
    assert all(answer.usage.total_tokens == 3 + 4 for answer in answers)
    assert all(answer.model == "gpt-4o-mini" for answer in answers)


@replayed("azure_chat.yaml")
async def test_azure(address):
    requests = [ask("Where is Rome?"), ask("Where is Oslo?", max_tokens=2)]
    answers = await azure_engine(address).achat_completion_list(requests, show_progress=False)
    assert texts(answers) == ["A:Where is Rome?", "A:Where "]
    assert [answer.choices[0].finish_reason for answer in answers] == ["stop", "length"]


@replayed("openai_from_a_thread.yaml")
def test_openai_from_synchronous_code(address):
    answers = openai_engine(address).chat_completion_list(
        [ask("Where is Rome?")], show_progress=False
    )
    assert texts(answers) == ["A:Where is Rome?"]


@replayed("openai_throttled.yaml", faults=[Fault.rate_limited(0.001), None])
async def test_a_throttled_request_is_asked_again(address, clock):
    engine = openai_engine(address, clock=clock)
    answer = await engine.cached_chat_completion(ask("Again?"))
    assert answer.choices[0].message.content == "A:Again?"
    assert answer.attempts == 2
    assert clock.monotonic() >= 1000.001


@replayed("openai_unknown_model.yaml", models=["gpt-4o-mini"])
async def test_an_unknown_model(address, vcr):
    with pytest.raises(NotFound, match="gpt-9") as caught:
        await openai_engine(address).cached_chat_completion(ask("x") | {"model": "gpt-9"})
    assert caught.value.code == "model_not_found"
    assert len(vcr) == 1


@replayed("azure_quota.yaml", faults=[Fault.insufficient_quota()])
async def test_spent_credit_on_azure_is_not_asked_again(address, vcr):
    with pytest.raises(RunAborted) as caught:
        await azure_engine(address).cached_chat_completion(ask("x"))
    assert isinstance(caught.value.__cause__, QuotaExhausted)
    assert len(vcr) == 1


CHANGED = {
    "body": (openai_engine, ask("Where is Paris?")),
    "parameter": (openai_engine, ask("Where is Rome?", temperature=0.1)),
    "model": (openai_engine, ask("Where is Rome?") | {"model": "gpt-4o"}),
    "path": (azure_engine, ask("Where is Rome?")),
}


@pytest.mark.skipif("config.getoption('--record-mode') not in (None, 'none')")
@pytest.mark.vcr(record_mode="none")
@pytest.mark.block_network
@pytest.mark.default_cassette("openai_chat.yaml")
@pytest.mark.parametrize("changed", CHANGED)
async def test_a_changed_request_does_not_match(address, vcr, changed):
    make_engine, request = CHANGED[changed]
    with pytest.raises(RequestError):
        await make_engine(address).chat_completion(**request)
    assert vcr.play_count == 0
    answer = await openai_engine(address).chat_completion(**ask("Where is Rome?"))
    assert texts([answer]) == ["A:Where is Rome?"]
    assert vcr.play_count == 1


@pytest.mark.skipif("config.getoption('--record-mode') not in (None, 'none')")
@pytest.mark.vcr(record_mode="none")
@pytest.mark.block_network
@pytest.mark.default_cassette("azure_chat.yaml")
async def test_a_changed_query_does_not_match(address, vcr):
    engine = azure_engine(address, azure_openai_version="1999-01-01")
    with pytest.raises(RequestError):
        await engine.chat_completion(**ask("Where is Rome?"))
    assert vcr.play_count == 0


@pytest.mark.parametrize("make_engine", [openai_engine, azure_engine])
async def test_recording_keeps_secrets_out_and_replays_without_the_server(tmp_path, make_engine):
    file = tmp_path / "fresh.yaml"
    with FakeProvider() as server, vcrpy.VCR(**SCRUBBED).use_cassette(str(file)):
        await make_engine(server).chat_completion(**ask("Where?", extra_query={"key": KEY}))
        assert server.requests[0].key == KEY
        assert server.requests[0].query["key"] == KEY
    assert not SECRETS.search(file.read_text())
    with vcrpy.VCR(**SCRUBBED).use_cassette(str(file), record_mode="none") as cassette:
        answer = await make_engine(server).chat_completion(**ask("Where?"))
        assert cassette.all_played
    assert texts([answer]) == ["A:Where?"]


FILES = sorted(CASSETTES.glob("**/*"))


def test_there_is_a_cassette_for_each_engine():
    names = {file.name for file in FILES}
    assert {"openai_chat.yaml", "azure_chat.yaml"} <= names
    assert all(file.suffix == ".yaml" for file in FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_cassette_holds_no_secret(file):
    text = file.read_text()
    assert not SECRETS.findall(text)
    for interaction in yaml.safe_load(text)["interactions"]:
        request, response = interaction["request"], interaction["response"]
        assert request["uri"].startswith(f"https://{HOST}/")
        assert {name.lower() for name in request["headers"]} <= KEPT_REQUEST_HEADERS
        assert {name.lower() for name in response["headers"]} <= KEPT_RESPONSE_HEADERS


@pytest.mark.parametrize(
    "secret",
    [
        f"Authorization: Bearer {KEY}",
        "api-key: 0123456789abcdef",
        "message: Incorrect API key provided sk-proj-abcdefghijkl",
        "openai-organization: org-abc",
        "uri: https://myresource.openai.azure.com/openai",
        "uri: http://127.0.0.1:4711/v1",
        "set-cookie: __cf_bm=x",
        "token: eyJhbGciOiJIUzI1NiJ9.eyJzdWIi",
    ],
)
def test_the_search_for_secrets_is_not_blind(secret):
    assert SECRETS.search(secret)
