"""Clients that ask a model through gateways without an end, and count what comes of each request.

A request has an id of its own (`X-Request-ID`), under which the logs of gateway and engine know it. Nothing is asked
twice: whatever a client of the real world would see fail, fails here.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import openai

from api.contract.identity import new_id

PATH = "/v1/chat/completions"
HEADER = "x-request-id"
FEW, MANY = 2, 60
"""Words that an engine says after those of its own."""
PAUSE = 0.05
"""Seconds from one answer to the client's next request."""
TIMEOUT = 120.0


class AnswerError(Exception):
    """An answer is not what was asked for."""


@dataclass(slots=True)
class Request:
    """One request, as its client saw it. Times are Unix seconds."""

    kind: str
    id: str = field(default_factory=new_id)
    began: float = field(default_factory=time.time)
    first_byte: float | None = None
    """When the first byte of a stream's body came."""
    ended: float = 0.0
    error: str | None = None
    """Why it failed; `None`: it was answered in full."""

    @property
    def waited(self) -> float:
        """Seconds to the first byte of a stream's body, or to the whole answer."""
        return (self.first_byte or self.ended) - self.began

    @property
    def headers(self) -> dict[str, str]:
        """What names it."""
        return {HEADER: self.id}

    def told(self) -> None:
        """Note that a stream has begun, if that is new."""
        self.first_byte = self.first_byte or time.time()

    def __str__(self) -> str:
        clock = time.strftime("%X", time.localtime(self.ended))
        word = "broke off" if self.first_byte else "failed"
        return f"{clock} {self.id} ({self.kind}) {word} after {self.ended - self.began:.1f} s: {self.error}"


def body(model: str, words: int, *, stream: bool) -> dict[str, object]:
    """Return what a client sends."""
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": text_of(words)}]}


def text_of(words: int) -> str:
    """Return a text of so many words."""
    return " ".join(map(str, range(words)))


def check(said: str, words: int) -> None:
    """Raise `AnswerError` if an engine did not say all that it was asked to."""
    if not said.endswith(f"echo: {text_of(words)}"):
        raise AnswerError(f"it is not whole: …{said[-80:]!r}")


class Clients:
    """One client of each kind for each gateway, each in a thread of its own."""

    def __init__(self, urls: Sequence[str], model: str) -> None:
        self._model = model
        self._over = threading.Event()
        self.ended: list[Request] = []
        """All requests that have ended, in that order."""
        kinds = (self._short, self._long, self._short_by_openai, self._long_by_openai)
        self._threads = [threading.Thread(target=work, args=(url,)) for url in urls for work in kinds]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _short(self, url: str) -> None:
        with httpx.Client(base_url=url, trust_env=False, timeout=TIMEOUT) as client:
            for request in self._requests("short"):
                with self._counted(request):
                    content = body(self._model, FEW, stream=False)
                    answer = client.post(PATH, json=content, headers=request.headers)
                    if answer.status_code != 200:
                        raise AnswerError(f"{answer.status_code} {answer.text}")
                    check(answer.json()["choices"][0]["message"]["content"], FEW)

    def _long(self, url: str) -> None:
        with httpx.Client(base_url=url, trust_env=False, timeout=TIMEOUT) as client:
            for request in self._requests("stream"):
                with self._counted(request):
                    read_stream(client, self._model, MANY, request)

    def _short_by_openai(self, url: str) -> None:
        with openai_client(url) as client:
            for request in self._requests("short, openai"):
                with self._counted(request):
                    content = body(self._model, FEW, stream=False)
                    answer = client.chat.completions.create(**content, extra_headers=request.headers)
                    check(answer.choices[0].message.content or "", FEW)

    def _long_by_openai(self, url: str) -> None:
        with openai_client(url) as client:
            for request in self._requests("stream, openai"):
                with self._counted(request):
                    content = body(self._model, MANY, stream=True)
                    said, finish = "", None
                    for chunk in client.chat.completions.create(**content, extra_headers=request.headers):
                        request.told()
                        said += chunk.choices[0].delta.content or ""
                        finish = chunk.choices[0].finish_reason
                    if finish != "stop":
                        raise AnswerError("it ended without a reason")
                    check(said, MANY)

    def _requests(self, kind: str) -> Iterator[Request]:
        while not self._over.wait(PAUSE):
            yield Request(kind)

    @contextmanager
    def _counted(self, request: Request) -> Iterator[None]:
        with answered(request):
            yield
        self.ended.append(request)


@contextmanager
def answered(request: Request) -> Iterator[None]:
    """Write down how a request ended."""
    try:
        yield
    except (AnswerError, httpx.HTTPError, openai.OpenAIError) as error:
        request.error = f"{type(error).__name__}: {error}"
    finally:
        request.ended = time.time()


def read_stream(client: httpx.Client, model: str, words: int, request: Request) -> None:
    """Ask for a stream and read it to its end; raises `AnswerError`, `httpx.HTTPError`."""
    said, last = "", ""
    with client.stream("POST", PATH, json=body(model, words, stream=True), headers=request.headers) as answer:
        if answer.status_code != 200:
            raise AnswerError(f"{answer.status_code} {answer.read().decode(errors='replace')}")
        for line in filter(None, answer.iter_lines()):
            request.told()
            said += _delta(line)
            last = line
    if last != "data: [DONE]":
        raise AnswerError(f"its last line is {last!r}")
    check(said, words)


def _delta(line: str) -> str:
    data = line.removeprefix("data: ")
    if data == "[DONE]" or line.startswith(":"):
        return ""
    choices = json.loads(data).get("choices") or [{}]
    return str(choices[0].get("delta", {}).get("content") or "")


def openai_client(url: str) -> openai.OpenAI:
    """Return OpenAI's own client of a gateway; it asks once."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=TIMEOUT)
