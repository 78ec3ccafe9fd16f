"""The demo's service, over the REST API: declare it, follow it, ask it, end it."""

from __future__ import annotations

import time
from typing import Any

import httpx

from deploy.demo.places import QUESTION, RECIPE, SERVICE
from deploy.demo.progress import Board
from deploy.demo.server import Server, log_file
from deploy.demo.trouble import Trouble

LIVING = ("pending", "building", "starting", "running")
ENDED = ("failed", "cancelled", "completed")

STATES = {
    "pending": "queued on Slurm",
    "building": "building the image",
}


class Api:
    """The few calls that the demo makes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._client = httpx.Client(base_url=server.url, timeout=httpx.Timeout(30, read=300))

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Return status code and body; anything that is not an answer is trouble."""
        try:
            answer = self._client.request(method, f"/api/v1{path}", json=body)
            return answer.status_code, answer.json()
        except (httpx.HTTPError, ValueError) as error:
            why = str(error) if self.server.alive() else "API and controller have ended"
            raise Trouble(
                f"{method} {path} got no answer", why, log_file(), "read the log, then `make demo` again"
            ) from error

    def get(self, path: str) -> Any:
        """Return the body of what must be there."""
        code, body = self.call("GET", path)
        if code != httpx.codes.OK:
            raise Trouble(f"GET {path} answered {code}", str(body), log_file())
        return body

    def services(self) -> list[dict[str, Any]]:
        """Return those that are not over."""
        return [service for service in self.get("/services") if service["status"] not in ("cancelled", "completed")]

    def delete(self, service_id: str) -> None:
        """Stop it for good."""
        code, body = self.call("DELETE", f"/services/{service_id}")
        if code not in (httpx.codes.OK, httpx.codes.NOT_FOUND):
            raise Trouble(f"the service {service_id} can't be stopped", str(body), log_file())

    def logs(self, service_id: str) -> str:
        """Return what its job has written."""
        code, body = self.call("GET", f"/services/{service_id}/logs")
        return str(body.get("logs", "")) if code == httpx.codes.OK and isinstance(body, dict) else ""


def declare(api: Api) -> tuple[str, bool]:
    """Return the id of the demo's service, and whether it was there already."""
    mine = [service for service in api.services() if service["name"] == SERVICE]
    for service in mine:
        if service["status"] in LIVING:
            return str(service["id"]), True
    for service in mine:
        api.delete(service["id"])
    end = time.monotonic() + 60
    while True:
        code, body = api.call("POST", "/services", {"recipe_name": RECIPE, "name": SERVICE, "config": {}})
        if code == httpx.codes.OK:
            return str(body["id"]), False
        # the name of a service that is being stopped is free a little later
        if code != httpx.codes.CONFLICT or time.monotonic() > end:
            raise Trouble("the service is refused", str(body.get("detail", body)), log_file())
        time.sleep(1)


def follow(api: Api, board: Board, service_id: str, timeout: float) -> None:
    """Show each stage once, until the service answers."""
    started = time.monotonic()
    shown: set[str] = set()

    def show(stage: str) -> None:
        if stage not in shown:
            shown.add(stage)
            board.done(f"  {stage}", time.monotonic() - started)

    with board.step("Service ready") as step:
        while True:
            service = api.get(f"/services/{service_id}")
            status = service["status"]
            if status == "running" and not shown:
                return  # it was there already; nothing to tell
            if status in STATES:
                show(STATES[status])
            if status == "running":
                return
            step.note = str(service.get("message") or step.note)
            if status == "starting" and step.note:
                show(step.note.rstrip("."))
            if status in ENDED:
                raise _failed(api, service)
            if time.monotonic() - started > timeout:
                raise Trouble(
                    f"the service is still {status} after {timeout:.0f} s",
                    str(service.get("message") or ""),
                    log_file(),
                    "AI_FACTORY_DEMO_TIMEOUT gives it more time; `make demo` takes it up again",
                )
            time.sleep(0.5)


def _failed(api: Api, service: dict[str, Any]) -> Trouble:
    why = [str(service.get("message") or "no reason given")]
    conditions = service.get("conditions")
    for condition in conditions if isinstance(conditions, list) else []:
        if isinstance(condition, dict):
            words = [str(condition.get(key) or "") for key in ("type", "status", "reason", "message")]
            why.append("        " + " ".join(word for word in words if word))
    lines = api.logs(str(service["id"])).splitlines()[-20:]
    why += ["        the last lines of its log:", *(f"        | {line}" for line in lines)]
    return Trouble(
        f"the service is {service['status']}",
        "\n".join(why),
        log_file(),
        "mend what the log says, then `make demo` again: it replaces the failed service",
    )


def ask(api: Api, service_id: str) -> str:
    """Return the model's answer."""
    body = {"prompt": QUESTION, "max_tokens": 40, "temperature": 0}
    code, answer = api.call("POST", f"/vllm/{service_id}/prompt", body)
    if code != httpx.codes.OK or not answer.get("success"):
        raise Trouble("the model gave no answer", str(answer), log_file())
    return str(answer["response"]).strip()


def end_all(api: Api, board: Board, only: str | None) -> None:
    """Stop the services (only the one of this name, if given) and wait until their jobs are gone."""
    mine = [service for service in api.get("/services") if only in (None, service["name"])]
    ids = [str(service["id"]) for service in mine if not _over(service)]
    for service_id in ids:
        api.delete(service_id)
    if not ids:
        return
    with board.step("Services stopped"):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            answers = [api.call("GET", f"/services/{service_id}") for service_id in ids]
            if all(code == httpx.codes.NOT_FOUND or _over(service) for code, service in answers):
                return
            time.sleep(0.3)
        raise Trouble(
            f"not all of the services {', '.join(ids)} are known to have ended after 60 s",
            "Slurm may not answer",
            log_file(),
            "look at squeue, then `make demo-down` again",
        )


def _over(service: dict[str, Any]) -> bool:
    """Tell whether none of its jobs runs; its status says `cancelled` from the first moment."""
    reasons = [item.get("reason") for item in service.get("conditions") or [] if item.get("type") == "Progressing"]
    return service.get("status") in ENDED and any(reason in ("Stopped", "Completed", "Failed") for reason in reasons)
