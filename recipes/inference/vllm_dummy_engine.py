"""A small engine that speaks vLLM's HTTP API without a model: for trying things out, and for tests.

Answers are deterministic: `[MODEL] echo: PROMPT`, cut after `max_tokens` words. Standard library only, Python 3.9+.
VLLM_API_KEY guards /v1, as with vLLM.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import socketserver
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VERSION = "0.32.0"

NO_CHAT_TEMPLATE = (
    "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template "
    "if the tokenizer does not define one."
)

ENDS = {signal.SIGTERM, signal.SIGINT}
"""What ends it. They are waited for: a handler that takes a lock would meet itself when two come at once."""

Json = dict[str, Any]


class RequestError(Exception):
    """A request that is answered with an error, in vLLM's shape."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


def log(message: str) -> None:
    """Write a line as vLLM does."""
    print(f"(APIServer pid={os.getpid()}) INFO {time.strftime('%m-%d %H:%M:%S')} [dummy.py:1] {message}", flush=True)


class Engine:
    """The model that is not there, and its counters."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.health = 200
        self._lock = threading.Lock()
        self.counts = {"running": 0, "prompt_tokens": 0, "generation_tokens": 0, "request_success": 0}

    def add(self, name: str, amount: int) -> None:
        """Count something."""
        with self._lock:
            self.counts[name] += amount

    def model(self) -> Json:
        """Describe the model as /v1/models does."""
        name = self.options.model
        return {"id": name, "object": "model", "created": 0, "owned_by": "vllm", "root": name, "max_model_len": 4096}

    def words(self, prompt: str, limit: int | None) -> tuple[list[str], str]:
        """Return the answer's words, spaces included, and why it ends."""
        words = re.findall(r"^[^ ]+| [^ ]*", f"[{self.options.model}] echo: {prompt}")
        return words[:limit], "length" if limit is not None and len(words) > limit else "stop"

    def spoken(self, words: list[str]) -> Iterator[str]:
        """Say words one by one, at the pace that was asked for."""
        for word in words:
            time.sleep(self.options.token_delay)
            self.add("generation_tokens", 1)
            yield word

    def metrics(self) -> str:
        """Return what Prometheus reads."""
        label = '{engine="0",model_name=' + json.dumps(self.options.model) + "}"
        values = {
            "num_requests_running": self.counts["running"],
            "num_requests_waiting": 0,
            "kv_cache_usage_perc": min(1.0, self.counts["running"] / 100),
            **{
                f"{name}_total": self.counts[name] for name in ("prompt_tokens", "generation_tokens", "request_success")
            },
        }
        types = {name: "counter" if name.endswith("_total") else "gauge" for name in values}
        return "".join(f"# TYPE vllm:{n} {types[n]}\nvllm:{n}{label} {float(v)}\n" for n, v in values.items())


class Handler(BaseHTTPRequestHandler):
    """vLLM's routes."""

    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        """A socket has no delay that could be turned off."""
        self.disable_nagle_algorithm = self.server.address_family != socket.AF_UNIX
        super().setup()

    def address_string(self) -> str:
        """Return who asks; over a socket nobody has a name."""
        host, port, *_ = self.client_address or ("", 0)
        return f"{host}:{port}"

    def answer(self) -> None:
        """Read the body whatever comes of it, so that the connection stays usable; then find the route."""
        engine = self.server.engine
        routes: dict[str, Callable[[bytes], None]] = {
            "GET /health": lambda _: self._send(b"", engine.health),
            "GET /ping": lambda _: self._send(b"", engine.health),
            "GET /version": lambda _: self._send({"version": VERSION}),
            "GET /metrics": lambda _: self._send(engine.metrics().encode()),
            "GET /v1/models": lambda _: self._send({"object": "list", "data": [engine.model()]}),
            "POST /v1/completions": self._completions,
            "POST /v1/chat/completions": self._chat,
        }
        if engine.options.debug:
            routes["POST /debug/health"] = self._set_health
        path = self.path.partition("?")[0]
        key = os.environ.get("VLLM_API_KEY")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if path.startswith("/v1") and key and self.headers.get("Authorization") != f"Bearer {key}":
                self._send({"error": "Unauthorized"}, 401)
            elif f"{self.command} {path}" in routes:
                routes[f"{self.command} {path}"](body)
            else:
                self._send({"detail": "Not Found"}, 404)
        except RequestError as error:
            self._send(error.body, error.status)
        except ConnectionError:
            self.close_connection = True  # the client went away

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log a request as uvicorn does."""
        print(f"INFO:     {self.address_string()} - {format % args}", flush=True)

    def _set_health(self, body: bytes) -> None:
        self.server.engine.health = int(parse(body).get("status", 200))
        self._send({"status": self.server.engine.health})

    def _completions(self, body: bytes) -> None:
        request = self._request(body)
        prompt = request.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise RequestError(400, "BadRequestError", "Either prompt or prompt_embeds must be provided.", "prompt")
        self._complete(request, prompt, prompt, chat=False, limit=tokens(request, "max_tokens") or 16)

    def _chat(self, body: bytes) -> None:
        request = self._request(body)
        messages = request.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
            raise RequestError(400, "BadRequestError", "messages: a list of messages is required.", "messages")
        if self.server.engine.options.no_chat_template:
            raise RequestError(400, "BadRequestError", NO_CHAT_TEMPLATE)
        texts = [text_of(message.get("content")) for message in messages]
        limit = tokens(request, "max_completion_tokens") or tokens(request, "max_tokens")
        self._complete(request, texts[-1], " ".join(texts), chat=True, limit=limit)

    def _request(self, body: bytes) -> Json:
        request = parse(body)
        options = self.server.engine.options
        model = request.get("model", options.model)
        if model != options.model:
            raise RequestError(404, "NotFoundError", f"The model `{model}` does not exist.", "model")
        if options.fail_prompts:
            raise RequestError(500, "InternalServerError", "EngineCore encountered an issue.")
        return request

    def _complete(self, request: Json, prompt: str, read: str, *, chat: bool, limit: int | None) -> None:
        """Answer a prompt; `read` is all that counts as its tokens."""
        engine = self.server.engine
        engine.add("running", 1)
        try:
            words, finish = engine.words(prompt, limit)
            size = len(read.split())
            engine.add("prompt_tokens", size)
            usage = {"prompt_tokens": size, "total_tokens": size + len(words), "completion_tokens": len(words)}
            head: Json = {"id": f"cmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": engine.options.model}
            if request.get("stream"):
                wanted = (request.get("stream_options") or {}).get("include_usage")
                self._stream(head, engine.spoken(words), finish, usage if wanted else None, chat=chat)
            else:
                text = "".join(engine.spoken(words))
                said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
                head["object"] = "chat.completion" if chat else "text_completion"
                self._send({**self._reply(head, said, finish), "usage": usage})
            engine.add("request_success", 1)
        finally:
            engine.add("running", -1)

    def _reply(self, head: Json, said: Json, finish: str | None) -> Json:
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        return {**head, "choices": [] if self.server.engine.options.empty_choices else [choice]}

    def _stream(self, head: Json, words: Iterator[str], finish: str, usage: Json | None, *, chat: bool) -> None:
        """Send server-sent events, one a word; a client that leaves ends it."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        head["object"] = "chat.completion.chunk" if chat else "text_completion"
        if chat:
            self._event(self._reply(head, {"delta": {"role": "assistant", "content": ""}}, None))
        for word in words:
            self._event(self._reply(head, {"delta": {"content": word}} if chat else {"text": word}, None))
        self._event(self._reply(head, {"delta": {}} if chat else {"text": ""}, finish))
        if usage is not None:
            self._event({**head, "choices": [], "usage": usage})
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, content: object) -> None:
        chunk = f"data: {content if isinstance(content, str) else json.dumps(content)}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))

    def _send(self, content: object, status: int = 200) -> None:
        """Send bytes as plain text, all else as JSON."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(content, bytes) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """A thread for each connection. Bound at once, listening only when the engine is up, as vLLM does."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, options: argparse.Namespace, engine: Engine) -> None:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        self.address_family = socket.AF_UNIX if options.uds else family
        self.engine = engine
        super().__init__(options.uds or (options.host, options.port), Handler, bind_and_activate=False)
        socketserver.TCPServer.server_bind(self)  # the base class would look up the host's name, which may take long

    def where(self) -> str:
        """Say where it listens, as vLLM does."""
        if isinstance(self.server_address, str):
            return f"unix:{self.server_address}"
        return f"http://{self.server_address[0]}:{self.server_address[1]}"


def parse(body: bytes) -> Json:
    """Read a JSON object; raises `RequestError` (400)."""
    try:
        return dict(json.loads(body))
    except (TypeError, ValueError) as error:
        raise RequestError(400, "Bad Request", f"JSON decode error: {error}") from error


def tokens(request: Json, name: str) -> int | None:
    """Read a number of tokens; raises `RequestError` (400)."""
    value = request.get(name)
    if value is None or (type(value) is int and value > 0):
        return value
    raise RequestError(400, "BadRequestError", f"{name} must be at least 1, got {value}.", name)


def text_of(content: object) -> str:
    """Return a message's text, whether it is a string or a list of parts."""
    parts = content if isinstance(content, list) else [{"text": content or ""}]
    return " ".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def arguments() -> argparse.Namespace:
    """Read the command line. Times are seconds; `--exit-after` counts from the start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--uds", help="the path of a Unix socket; host and port are then ignored")
    parser.add_argument("--model", default="dummy")
    for name in ("--startup-delay", "--token-delay"):
        parser.add_argument(name, type=float, default=0.0)
    parser.add_argument("--exit-after", type=float)
    parser.add_argument("--exit-code", type=int, default=1)
    for name in ("--no-chat-template", "--fail-prompts", "--empty-choices", "--debug"):
        parser.add_argument(name, action="store_true")
    return parser.parse_args()


def crash(code: int) -> None:
    """End as a broken engine does."""
    print("RuntimeError: the engine was told to end by --exit-after", file=sys.stderr, flush=True)
    os._exit(code)


def main() -> None:
    """Serve until TERM or INT, then finish what is in flight."""
    options = arguments()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    engine = Engine(options)
    server = Server(options, engine)
    if options.exit_after is not None:
        threading.Timer(options.exit_after, crash, (options.exit_code,)).start()
    log(f"Initializing a V1 LLM engine (v{VERSION}) with config: model={options.model!r}")
    log(f"Starting to load model {options.model}...")
    if signal.sigtimedwait(ENDS, options.startup_delay) is not None:
        os._exit(128 + signal.SIGTERM)
    log("Loading weights took 0.00 seconds")
    server.server_activate()
    log(f"Starting vLLM server on {server.where()}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    print("INFO:     Application startup complete.", flush=True)
    signal.sigwait(ENDS)
    log("[shutdown] API server: shutdown triggered")
    server.shutdown()
    server.server_close()
    while engine.counts["running"]:
        time.sleep(0.01)
    print("INFO:     Application shutdown complete.", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
