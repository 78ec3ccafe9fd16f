"""The REST API, as the command line sees it. Every failure becomes one `CliError` in people's words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from api.cli.context import Context, server_url
from api.cli.exits import CliError, Exit

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0


class Client:
    """Calls of the API at one address."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=_address(self.url),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,  # a site's proxy does not lead to this host
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._http.close()

    def health(self) -> dict[str, Any]:
        """Return how the API itself is."""
        return _object(self._call("GET", "/health"))

    def services(self) -> list[dict[str, Any]]:
        """Return all services."""
        return _objects(self._call("GET", "/api/v1/services"))

    def service(self, name: str) -> dict[str, Any]:
        """Return one service, by id or name."""
        return _object(self._call("GET", _path(name)))

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Declare a service."""
        return _object(self._call("POST", "/api/v1/services", body=request))

    def delete(self, name: str) -> None:
        """Stop a service for good."""
        self._call("DELETE", _path(name))

    def logs(self, name: str) -> str:
        """Return what a service's jobs wrote."""
        return str(_object(self._call("GET", f"{_path(name)}/logs")).get("logs", ""))

    def prompt(self, name: str, body: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Ask a service's model; waits for the answer for `timeout` seconds."""
        path = f"/api/v1/vllm/{quote(name, safe='')}/prompt"
        return _object(self._call("POST", path, body=body, timeout=timeout))

    def _call(self, method: str, path: str, *, body: object = None, timeout: float = ANSWER_SECONDS) -> Any:
        with self._failures(timeout):
            answer = self._http.request(
                method, path, json=body, timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS)
            )
        try:
            content = answer.json()
        except ValueError as error:
            raise CliError(
                f"{self.url} answered {answer.status_code} without JSON: this is not the API. Check --server.",
                Exit.UNREACHABLE,
            ) from error
        if answer.is_success:
            return content
        code = Exit.NOT_FOUND if answer.status_code == httpx.codes.NOT_FOUND else Exit.FAILED
        raise CliError(refusal(answer.status_code, content), code)

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


def connect(context: Context) -> Client:
    """Return a client for the server that the command line or the settings name."""
    url = context.arguments.server or server_url(context.settings)
    return Client(url, admin_key(context.settings.api.admin_key_file))


def admin_key(path: Path | None) -> str | None:
    """Read the administrator's key, if there is one. Raises `CliError` (set-up)."""
    if path is None:
        return None
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise CliError(f"api.admin_key_file ({path}) can't be read: {reason}.", Exit.SETUP) from error
    if not key or not key.isascii() or not key.isprintable():
        raise CliError(f"api.admin_key_file ({path}) holds no key of printable ASCII characters.", Exit.SETUP)
    return key


def refusal(status: int, content: Any) -> str:
    """Put the API's refusal into words: `detail` is a sentence, or a list of what is wrong with which key."""
    detail = content.get("detail") if isinstance(content, Mapping) else None
    if isinstance(detail, list):
        text = "; ".join(_invalid(item) for item in detail)
    else:
        text = str(detail or f"The API answered {status}: {content}")
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        text = f"{text.rstrip('.')}. Set api.admin_key_file to the file with the key."
    return text


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
    raise CliError(f"{url} is not an address. Give --server as http://HOST:PORT.", Exit.USAGE)


def _path(name: str) -> str:
    return f"/api/v1/services/{quote(name, safe='')}"


def _object(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise CliError(f"The API answered with something unexpected: {content!r}", Exit.FAILED)
    return content


def _objects(content: Any) -> list[dict[str, Any]]:
    if not isinstance(content, list):
        raise CliError(f"The API answered with something unexpected: {content!r}", Exit.FAILED)
    return [_object(item) for item in content]
