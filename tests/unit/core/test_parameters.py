"""What travels to a job."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from api.contract.job.parameters import VERSION, Door, Image
from api.contract.job.words import Network
from api.contract.launch import Health, LaunchSpec, Resources, Volume
from controller.core.attempt import Attempt
from controller.core.script import Site, parameters

from .builders import HEALTH, JOB_SPEC, spec

SITE = Site(apptainer="/opt/apptainer", image_cache="/run/images", port_range=None, volumes="/v", python="python3")
ATTEMPT = Attempt(token="af-i-s-0-1", service_id="s", replica=0, incarnation=1, generation=1, digest="d", intent_at=0.0)


def of(launch: LaunchSpec, site: Site = SITE, secret: str = "hush", attempt: Attempt = ATTEMPT) -> dict[str, object]:
    found: dict[str, object] = json.loads(parameters(launch, attempt, secret, site).to_json())
    return found


def test_all_that_the_wrapper_needs() -> None:
    hostile = ("vllm", "serve", '$(reboot); "x"\n', ("--port=", {"runtime": "port"}))
    found = of(
        spec(
            image=Image(source="docker://vllm/vllm-openai"),
            command=hostile[:3],
            environment={"A": "1"},
            environment_from={"HF_TOKEN": "/secrets/hf"},
            binds=("/models:/models:ro",),
            files={"a.py": "print()"},
            resources=Resources(gpu=1),
            secret_variable="VLLM_API_KEY",
            stop_grace=7.0,
            paths=("/models/q",),
        ),
        replace(SITE, model_folders=("/models",), model_cache="/run/models"),
    )
    assert found == {
        "version": VERSION,
        "token": "af-i-s-0-1",
        "digest": "d",
        "lane": "main",
        "alone": True,
        "image": {"source": "docker://vllm/vllm-openai", "definition": None},
        "refresh": False,
        "image_cache": "/run/images",
        "apptainer": "/opt/apptainer",
        "command": ["vllm", "serve", '$(reboot); "x"\n'],
        "environment": {"A": "1"},
        "environment_from": {"HF_TOKEN": "/secrets/hf"},
        "secret_files": {"roots": [], "never": []},
        "binds": ["/models:/models:ro"],
        "volumes": [],
        "files": {"a.py": "print()"},
        "model_folders": ["/models"],
        "model_cache": "/run/models",
        "paths": ["/models/q"],
        "nv": True,
        "gpu_vendor": None,
        "network": "host",
        "listens": True,
        "host": "0.0.0.0",
        "secret": "hush",
        "secret_variable": "VLLM_API_KEY",
        "door": None,
        "port_range": None,
        "stop_grace": 7.0,
        "drain_most": 300.0,
        "warned_after": 0.0,
        "home": None,
        "check": None,
        "log_bytes": 0,
    }


@pytest.mark.parametrize(
    ("launch", "key", "value"),
    [
        (spec(secret_variable=None), "secret", None),
        (spec(resources=Resources(gpu=0)), "nv", False),
        (spec(resources=Resources(extra_options=("--gpus-per-node=4",))), "nv", True),
        (spec(resources=Resources(gres="shard:2")), "nv", True),
        (spec(gpu_vendor="amd"), "gpu_vendor", "amd"),
        (JOB_SPEC, "listens", False),
        (spec(health=HEALTH), "listens", True),
        (spec(image=None), "image", None),
        (spec(network=Network.PRIVATE), "network", "private"),
        (
            spec(image=Image(definition="Bootstrap: scratch")),
            "image",
            {"source": None, "definition": "Bootstrap: scratch"},
        ),
    ],
)
def test_what_depends(launch: LaunchSpec, key: str, value: object) -> None:
    assert of(launch)[key] == value


def test_the_jobs_own_check() -> None:
    health = Health(kind="command", command=("ready", ("-p", {"runtime": "port"})), interval=3.0, timeout=2.0)
    assert of(spec(health=health))["check"] == {
        "command": ["ready", ["-p", {"runtime": "port"}]],
        "interval": 3.0,
        "timeout": 2.0,
    }


@pytest.mark.parametrize(
    ("volume", "source"),
    [
        (Volume(target="/data", name="data"), "/v/s/data"),
        (Volume(target="/data", name="data-{replica}"), "/v/s/data-3"),
        (Volume(target="/data", path="/shared/x", root="/shared"), "/shared/x"),
        (Volume(target="/data", path="/shared/{replica}/x"), "/shared/3/x"),
    ],
)
def test_where_a_replica_has_its_volume(volume: Volume, source: str) -> None:
    attempt = replace(ATTEMPT, token="af-i-s-3-17", replica=3, incarnation=17)
    assert of(spec(volumes=(volume,)), attempt=attempt)["volumes"] == [
        {"source": source, "target": "/data", "root": volume.root}
    ]


def test_what_its_door_opens_with() -> None:
    door = Door(certificate="c", key="k", authority="a", id="i")
    told = json.loads(parameters(spec(), ATTEMPT, None, SITE, door).to_json())
    assert told["door"] == {"certificate": "c", "key": "k", "authority": "a", "id": "i"}


@pytest.mark.parametrize(
    ("resources", "warning", "after"),
    [
        (Resources(time_limit=60), 120, 3600.0 - 120 - 180),
        (Resources(time_limit=60, time_min=20), 120, 1200.0 - 120 - 180),
        (Resources(time_limit=5), 120, 0.0),
        (Resources(time_limit=4), 120, 0.0),
        (Resources(time_limit=None), 120, 0.0),
        (Resources(time_limit=60), 0, 0.0),
    ],
    ids=["its limit", "what that may be lowered to", "no time before", "less", "the site's limit", "no warning"],
)
def test_from_when_on_it_may_be_warned_of_its_time_limit(resources: Resources, warning: int, after: float) -> None:
    assert of(spec(resources=resources), replace(SITE, time_warning=warning))["warned_after"] == after


def test_the_sites_ports() -> None:
    site = Site(apptainer="a", image_cache="c", port_range=(20000, 20100), volumes="/v", python="python3")
    assert of(spec(), site)["port_range"] == [20000, 20100]


@pytest.mark.parametrize(
    ("beside", "launch", "alone"),
    [
        (None, spec(), True),
        ("HandOver", spec(), False),
        ("HandOver", spec(update_strategy="recreate"), True),
        ("HandOver", spec(volumes=(Volume(name="data", target="/data"),)), True),
    ],
)
def test_only_what_was_opened_with_a_reason_and_may_overlap_leaves_the_other_lane_alone(
    beside: str | None, launch: LaunchSpec, alone: bool
) -> None:
    assert of(launch, attempt=replace(ATTEMPT, beside=beside))["alone"] is alone
