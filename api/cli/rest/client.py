"""The REST API, as the command line sees it. Every failure becomes one `CliError` in people's words."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from api.cli.context import UNIX, Context, server_url
from api.cli.errors import CliError
from api.cli.rest.listener import OwnListener
from api.cli.rest.server_tls import tls_of
from api.contract.configuration import key_file_of_a_client, process_environment
from api.contract.exits import Exit
from api.contract.job.private import open_regular

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
SILENCE_SECONDS = 45.0
"""After which a stream counts as broken: the API says something every 15 s."""
NO_ATTEMPT = "There is no such attempt."
DRY_RUN = "dry_run"
MOST_LINES = 1000
"""Of a history, in one answer."""
KEYS = "/api/v1/keys"


class RefusedError(CliError):
    """The API said no. `status` is HTTP's."""

    def __init__(self, status: int, content: Any) -> None:
        super().__init__(refusal(status, content), Exit.NOT_FOUND if status == httpx.codes.NOT_FOUND else Exit.FAILED)
        self.status = status


class Client:
    """Calls of the API at one address.

    `is_chosen`: the user has named the address, and trusts who listens there. Else it must be the API of this user.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        seconds: float = ANSWER_SECONDS,
        *,
        is_chosen: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls` knows whose certificate is good; `None`: none is."""
        self.url = url.rstrip("/")
        self._seconds = seconds
        is_unix = url.startswith(UNIX)
        self._is_chosen = is_chosen
        transport = httpx.HTTPTransport if is_chosen else OwnListener
        self._http = httpx.Client(
            base_url="http://localhost" if is_unix else _address(self.url),
            # A site's proxy does not lead to this host.
            transport=transport(
                uds=url.removeprefix(UNIX) if is_unix else None,
                trust_env=False,
                verify=tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            ),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._http.close()

    def health(self) -> dict[str, Any]:
        """Return how the API itself is."""
        return _object(self._call("GET", "/health"))

    def services(self, query: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the services of which something is left, unless a query (the API's) asks for others."""
        return _objects(self._call("GET", "/api/v1/services", query=query or None))

    def service(self, name: str) -> dict[str, Any]:
        """Return one service, by id or name."""
        return _object(self._call("GET", path_of(name)))

    def living(self) -> list[dict[str, Any]]:
        """Return all services that are not deleted."""
        return self.services({"deleted": "false"})

    def declaration(self, name: str) -> dict[str, Any]:
        """Return what is wanted of a service, exactly as it was declared."""
        return _object(self._call("GET", f"{path_of(name)}/declaration"))

    def change(self, name: str, patch: Mapping[str, Any], version: int | None = None) -> dict[str, Any]:
        """Change what is wanted of a service: of this version only, if it is given (else `RefusedError`, 412)."""
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        return _object(self._call("PATCH", path_of(name), body=patch, headers=headers))

    def events(self, name: str, tail: int) -> list[dict[str, Any]]:
        """Return the last events of a service, the newest last."""
        return _objects(self._call("GET", f"{path_of(name)}/events", query={"tail": tail}))

    def attempts(self, name: str, tail: int) -> list[dict[str, Any]]:
        """Return the last attempts of a service, the newest last."""
        return _objects(self._call("GET", f"{path_of(name)}/attempts", query={"tail": tail}))

    def rollout(self, name: str) -> dict[str, Any]:
        """Return how far the last change of a service is, and which attempts stand for its replicas."""
        return _object(self._call("GET", rollout_path(name)))

    def generations(self, name: str) -> list[dict[str, Any]]:
        """Return what the last generations of a service asked to be launched, the newest last."""
        return _objects(self._call("GET", f"{rollout_path(name)}/history"))

    def undo(self, name: str, generation: int | None) -> dict[str, Any]:
        """Go back to what a generation asked for, or (`None`) the one before; return the rollout."""
        return _object(self._call("POST", f"{rollout_path(name)}/undo", body={"to_generation": generation}))

    def pause(self, name: str) -> dict[str, Any]:
        """Hold changes of a service back from what runs; return the rollout."""
        return _object(self._call("POST", f"{rollout_path(name)}/pause"))

    def resume(self, name: str) -> dict[str, Any]:
        """Go on with what was held back; return the rollout."""
        return _object(self._call("POST", f"{rollout_path(name)}/resume"))

    def recipes(self) -> list[dict[str, Any]]:
        """Return all recipes."""
        return _objects(self._call("GET", "/api/v1/recipes"))

    def keys(self) -> list[dict[str, Any]]:
        """Return all keys of those who use the API."""
        return _objects(self._call("GET", KEYS))

    def make_key(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Make a key; its secret is in the answer."""
        return _object(self._call("POST", KEYS, body=request))

    def make_token(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Have a key signed for some hours."""
        return _object(self._call("POST", "/api/v1/tokens", body=request))

    def rotate_key(self, key: str, grace: float) -> dict[str, Any]:
        """Make a key in another's place, which goes on for `grace` seconds."""
        return _object(self._call("POST", f"{KEYS}/{quote(key, safe='')}/rotate", body={"grace": grace}))

    def revoke_key(self, key: str) -> dict[str, Any]:
        """Revoke a key."""
        return _object(self._call("DELETE", f"{KEYS}/{quote(key, safe='')}"))

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Declare a service."""
        return _object(self._call("POST", "/api/v1/services", body=request))

    def try_create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `create` would; nothing is made. Raises `CliError` where the API is too old to only try."""
        document = self._call("GET", "/openapi.extended.json")
        if DRY_RUN not in str(document["paths"]["/api/v1/services"]["post"].get("parameters")):
            raise CliError(f"The API at {self.url} is older than --dry-run, and would make the service.")
        return _object(self._call("POST", "/api/v1/services", body=request, query={DRY_RUN: "true"}))

    def delete(self, name: str) -> None:
        """Stop a service for good."""
        self._call("DELETE", path_of(name))

    def logs(self, name: str, query: Mapping[str, Any]) -> str:
        """Return what a service's jobs wrote; `query` is the API's."""
        text = str(_object(self._call("GET", f"{path_of(name)}/logs", query=query)).get("logs", ""))
        return for_people(text) if text.startswith(NO_ATTEMPT) else text  # what jobs wrote stays as it is

    def prompt(self, name: str, body: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Ask a service's model; waits for the answer for `timeout` seconds."""
        return _object(self._call("POST", prompt_path(name), body=body, timeout=timeout))

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        silence: float = SILENCE_SECONDS,
    ) -> Iterator[httpx.Response]:
        """Open an answer that comes bit by bit. Raises `CliError` when it is refused, and when it breaks."""
        timeout = httpx.Timeout(silence, connect=CONNECT_SECONDS)
        with (
            self._failures(silence),
            self._http.stream(method, path, json=body, params=query, headers=headers, timeout=timeout) as answer,
        ):
            if not answer.is_success:
                answer.read()
                raise RefusedError(answer.status_code, self._content(answer))
            yield answer

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        seconds = self._seconds if timeout is None else timeout
        with self._failures(seconds):
            answer = self._http.request(
                method,
                path,
                json=body,
                params=query,
                headers=headers,
                timeout=httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
            )
        content = self._content(answer)
        if answer.is_success:
            return content
        raise RefusedError(answer.status_code, content)

    def _content(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            remedy = "Check --server." if self._is_chosen else "Another program has its port: set api.port."
            raise CliError(
                f"{self.url} answered {answer.status_code} without JSON: this is not the API. {remedy}",
                Exit.UNREACHABLE,
            ) from error

    @contextlib.contextmanager
    def _failures(self, timeout: float) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise CliError(
                f"The API at {self.url} can't be reached ({error}). Start it with: ai-factory up", Exit.UNREACHABLE
            ) from error
        except httpx.TimeoutException as error:
            raise CliError(f"The API at {self.url} did not answer within {timeout:g} s.", Exit.UNREACHABLE) from error
        except httpx.TransportError as error:
            raise CliError(f"The connection to {self.url} broke ({error}). Try again.", Exit.UNREACHABLE) from error


def connect(context: Context, seconds: float = ANSWER_SECONDS) -> Client:
    """Return a client for the server that the command line or the settings name."""
    named, settings = context.arguments.server, context.settings
    if named is None:
        url = server_url(settings)
        return Client(url, admin_key(settings.api.admin_key_file), seconds, tls=tls_of(settings))
    if settings.api.admin_key_file is None and (file := key_file_of_a_client(process_environment())) is not None:
        key = _key_in(file, "AI_FACTORY_KEY_FILE") or None
    else:
        key = admin_key(settings.api.admin_key_file)
    return Client(named, key, seconds, is_chosen=True, tls=tls_of(settings, named))


def admin_key(path: Path | None) -> str | None:
    """Read the administrator's key, if there is one. Raises `CliError` (set-up)."""
    if path is None:
        return None
    key = _key_in(path, "api.admin_key_file")
    if not key:
        raise CliError(f"api.admin_key_file ({path}) holds no key of printable ASCII characters.", Exit.SETUP)
    return key


def _key_in(path: Path, what: str) -> str:
    """Return the key that a file holds; "" for what is none, such as an installation's own. Raises `CliError`."""
    try:
        with open_regular(path) as file:
            mode, content = os.fstat(file.fileno()).st_mode, file.read()
    except OSError as error:
        raise CliError(f"{what} ({path}) can't be read: {error.strerror}.", Exit.SETUP) from error
    if mode & 0o077:
        raise CliError(f"{what} ({path}) can be read by others. Run: chmod 600 {path}", Exit.SETUP)
    key = content.decode("ascii", errors="replace").strip()
    return key if key.isascii() and key.isprintable() else ""


_COMMANDS = {
    "GET /v1/models lists those that there are.": "See: ai-factory services list",
    "GET /v1/models lists them.": "see: ai-factory services list",
    "GET …/attempts lists those that there are.": "See: ai-factory services history",
    "GET …/rollout/history lists those that are.": "See: ai-factory services rollout history",
    "POST …/rollout/resume has it go on.": "To go on: ai-factory services rollout resume",
    ": GET /api/v1/keys lists them": ". See: ai-factory api-keys list",
    "Service not found": "There is no such service. See: ai-factory services list",
}
"""The command for what the API names a request for."""


def for_people(text: str) -> str:
    """Return what the API says in the words of the command line."""
    for said, command in _COMMANDS.items():
        text = text.replace(said, command)
    return text


def refusal(status: int, content: Any) -> str:
    """Put the API's refusal into words: `detail` is a sentence, or a list of what is wrong with which key."""
    detail = _detail(content) if isinstance(content, Mapping) else None
    if isinstance(detail, list):
        text = "; ".join(_invalid(item) for item in detail)
    else:
        text = for_people(str(detail or f"The API answered {status}: {content}"))
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        text = f"{text.rstrip('.')}. Set api.admin_key_file, or AI_FACTORY_KEY_FILE, to the file with the key."
    return text


def _detail(content: Mapping[str, Any]) -> Any:
    """Return what was said; under /v1 it is said as OpenAI does."""
    error = content.get("error")
    return error.get("message") if isinstance(error, Mapping) else content.get("detail")


def _invalid(item: Any) -> str:
    if not isinstance(item, Mapping):
        return str(item)
    where = [str(part) for part in item.get("loc", ()) if part not in ("body", "query", "path")]
    return f"{'.'.join(where) or 'body'}: {item.get('msg', 'not valid')}"


def _address(url: str) -> httpx.URL:
    with contextlib.suppress(httpx.InvalidURL):
        address = httpx.URL(url)
        if address.scheme in ("http", "https") and address.host:
            return address
    raise CliError(f"{url} is not an address. Give --server as http://HOST:PORT, or as unix:PATH.", Exit.USAGE)


def path_of(name: str) -> str:
    """Return where a service is, by id or name."""
    return f"/api/v1/services/{quote(name, safe='')}"


def rollout_path(name: str) -> str:
    """Return where the rollout of a service is."""
    return f"{path_of(name)}/rollout"


def prompt_path(name: str) -> str:
    """Return where a service's model is asked."""
    return f"/api/v1/vllm/{quote(name, safe='')}/prompt"


def _object(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise CliError(f"The API answered with something unexpected: {content!r}", Exit.FAILED)
    return content


def _objects(content: Any) -> list[dict[str, Any]]:
    if not isinstance(content, list):
        raise CliError(f"The API answered with something unexpected: {content!r}", Exit.FAILED)
    return [_object(item) for item in content]
