"""docker-compose.yml: nothing floats, nothing is open to the network, everything is watched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def test_the_services_that_the_caches_need() -> None:
    assert SERVICES.keys() == {"qdrant", "redis", "minio"}


@each_service
def test_the_image_is_pinned_to_a_release(service: dict[str, Any]) -> None:
    _, _, tag = service["image"].rpartition(":")
    # A whole version or a date: "8" and "8.8" move.
    assert re.search(r"\d+\.\d+\.\d+|RELEASE\.\d{4}-\d\d-\d\dT", tag), service["image"]


@each_service
def test_ports_are_open_to_this_machine_only(service: dict[str, Any]) -> None:
    assert service["ports"]
    for port in service["ports"]:
        assert port.startswith("127.0.0.1:"), port
    assert "network_mode" not in service


@each_service
def test_a_healthcheck_runs_a_program_of_the_image(service: dict[str, Any]) -> None:
    check = service["healthcheck"]
    kind, program, *arguments = check["test"]
    assert kind == "CMD", "CMD-SHELL runs /bin/sh, which is another one in each image"
    assert program in {"bash", "redis-cli", "silo"}
    assert arguments
    assert {"interval", "timeout", "retries"} <= check.keys()


@each_service
def test_data_is_on_a_named_volume(service: dict[str, Any]) -> None:
    sources = [volume.partition(":")[0] for volume in service["volumes"]]
    assert sources
    assert set(sources) <= COMPOSE["volumes"].keys()


@each_service
def test_credentials_come_from_the_environment(service: dict[str, Any]) -> None:
    for name, value in service.get("environment", {}).items():
        if re.search(r"USER|PASSWORD|KEY|TOKEN|SECRET", name):
            assert re.fullmatch(rf"\$\{{{name}:-[^}}]+\}}", value), name
