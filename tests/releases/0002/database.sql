BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE attempts (
	token VARCHAR(96) NOT NULL, 
	service_id VARCHAR(32) NOT NULL, 
	replica INTEGER NOT NULL, 
	incarnation INTEGER NOT NULL, 
	lane VARCHAR(16) NOT NULL, 
	generation INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	failures INTEGER NOT NULL, 
	intent_at DOUBLE NOT NULL, 
	job_id BIGINT, 
	submitted_at DOUBLE, 
	absent_since DOUBLE, 
	claimed_at DOUBLE, 
	started_at DOUBLE, 
	node VARCHAR(255), 
	host VARCHAR(255), 
	launched_at DOUBLE, 
	port INTEGER, 
	serving_at DOUBLE, 
	ready_at DOUBLE, 
	unready_since DOUBLE, 
	ends_at DOUBLE, 
	closed_at DOUBLE, 
	outcome VARCHAR(64), 
	message TEXT NOT NULL, 
	exit_code INTEGER, 
	gone_at DOUBLE, 
	CONSTRAINT pk_attempts PRIMARY KEY (token), 
	CONSTRAINT ck_attempts_closed_has_outcome CHECK (closed_at IS NULL OR outcome IS NOT NULL), 
	CONSTRAINT ck_attempts_gone_is_closed CHECK (gone_at IS NULL OR closed_at IS NOT NULL), 
	CONSTRAINT ck_attempts_incarnation_range CHECK (incarnation >= 1), 
	CONSTRAINT ck_attempts_port_range CHECK (port IS NULL OR port BETWEEN 1 AND 65535), 
	CONSTRAINT ck_attempts_replica_range CHECK (replica >= 0), 
	CONSTRAINT fk_attempts_service_id_services FOREIGN KEY(service_id) REFERENCES services (id) ON DELETE CASCADE
);
INSERT INTO "attempts" VALUES('af-z42chr-7f96e9xf-0-1','7f96e9xf',0,1,'main',1,'d87161a52989e3f0171b147834ece65f',0,1.79544607519886326792e+09,1,1.7954460752313656807e+09,NULL,1.79544607601955533027e+09,1795446075.0,'node1','127.0.0.1',1.79544607601955533027e+09,38815,1.79544607703369522096e+09,1.79544607704709935185e+09,NULL,1795449675.0,NULL,NULL,'',NULL,NULL);
CREATE TABLE endpoints (
	token VARCHAR(96) NOT NULL, 
	service_id VARCHAR(32) NOT NULL, 
	replica INTEGER NOT NULL, 
	models JSON NOT NULL, 
	host VARCHAR(255) NOT NULL, 
	port INTEGER NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	change_seq BIGINT DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_endpoints PRIMARY KEY (token), 
	CONSTRAINT ck_endpoints_state_word CHECK (state IN ('ready', 'unready')), 
	CONSTRAINT ck_endpoints_port_range CHECK (port BETWEEN 1 AND 65535), 
	CONSTRAINT fk_endpoints_service_id_services FOREIGN KEY(service_id) REFERENCES services (id) ON DELETE CASCADE
);
INSERT INTO "endpoints" VALUES('af-z42chr-7f96e9xf-0-1','7f96e9xf',0,'["dummy"]','127.0.0.1',38815,'ready',2);
CREATE TABLE events (
	id INTEGER NOT NULL, 
	service_id VARCHAR(32) NOT NULL, 
	type VARCHAR(16) NOT NULL, 
	reason VARCHAR(64) NOT NULL, 
	message TEXT NOT NULL, 
	count INTEGER NOT NULL, 
	first_at DOUBLE NOT NULL, 
	last_at DOUBLE NOT NULL, 
	CONSTRAINT pk_events PRIMARY KEY (id), 
	CONSTRAINT fk_events_service_id_services FOREIGN KEY(service_id) REFERENCES services (id) ON DELETE CASCADE
);
INSERT INTO "events" VALUES(1,'7f96e9xf','Normal','Submitting','Replica 0: attempt 1 was opened.',1,1.79544607519886326792e+09,1.79544607519886326792e+09);
INSERT INTO "events" VALUES(2,'7f96e9xf','Normal','Submitted','Replica 0: it is job 1.',1,1.7954460752313656807e+09,1.7954460752313656807e+09);
INSERT INTO "events" VALUES(3,'7f96e9xf','Normal','Started','Replica 0: job 1 started on node1.',1,1.79544607601955533027e+09,1.79544607601955533027e+09);
INSERT INTO "events" VALUES(4,'7f96e9xf','Normal','Ready','Replica 0: ready 2 s after its job started.',1,1.79544607704709935185e+09,1.79544607704709935185e+09);
CREATE TABLE feed (
	singleton INTEGER NOT NULL, 
	seq BIGINT NOT NULL, 
	CONSTRAINT pk_feed PRIMARY KEY (singleton), 
	CONSTRAINT ck_feed_one_row CHECK (singleton = 1)
);
INSERT INTO "feed" VALUES(1,2);
CREATE TABLE installation (
	singleton INTEGER NOT NULL, 
	id VARCHAR(16) NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_installation PRIMARY KEY (singleton), 
	CONSTRAINT ck_installation_one_row CHECK (singleton = 1)
);
INSERT INTO "installation" VALUES(1,'z42chr',1.79544607321091318125e+09);
CREATE TABLE leases (
	name VARCHAR(32) NOT NULL, 
	epoch BIGINT NOT NULL, 
	holder VARCHAR(255), 
	host VARCHAR(255), 
	renewals BIGINT NOT NULL, 
	renewed_at DOUBLE NOT NULL, 
	CONSTRAINT pk_leases PRIMARY KEY (name)
);
INSERT INTO "leases" VALUES('controller',1,NULL,'login1',2,1.79544607629843664168e+09);
CREATE TABLE service_status (
	service_id VARCHAR(32) NOT NULL, 
	observed_generation INTEGER NOT NULL, 
	wanted_replicas INTEGER NOT NULL, 
	ready_replicas INTEGER NOT NULL, 
	conditions JSON NOT NULL, 
	spec TEXT, 
	digest VARCHAR(64) NOT NULL, 
	updated_at DOUBLE NOT NULL, 
	CONSTRAINT pk_service_status PRIMARY KEY (service_id), 
	CONSTRAINT fk_service_status_service_id_services FOREIGN KEY(service_id) REFERENCES services (id) ON DELETE CASCADE
);
INSERT INTO "service_status" VALUES('7f96e9xf',1,1,1,'[{"type": "Accepted", "status": "True", "reason": "Valid", "message": "", "since": 1795446075.1988633, "generation": 1}, {"type": "Observed", "status": "True", "reason": "Reading", "message": "", "since": 1795446075.1988633, "generation": 1}, {"type": "Ready", "status": "True", "reason": "AllReady", "message": "1 of 1 replicas are ready.", "since": 1795446077.0470994, "generation": 1}, {"type": "Available", "status": "True", "reason": "Answering", "message": "", "since": 1795446077.0470994, "generation": 1}, {"type": "Progressing", "status": "False", "reason": "AsWanted", "message": "", "since": 1795446077.0470994, "generation": 1}]','{"binds":["/usr:/usr:ro"],"command":["python3",[{"runtime":"files"},"/vllm_dummy_engine.py"],"--host",[{"runtime":"host"}],"--port",[{"runtime":"port"}],"--model","dummy"],"engine":"vllm","environment":{},"environment_from":{},"files":{"vllm_dummy_engine.py":"\"\"\"A small engine that speaks vLLM''s HTTP API without a model: for trying things out, and for tests.\n\nAnswers are deterministic: `[MODEL] echo: PROMPT`, cut after `max_tokens` words. Standard library only, Python 3.9+.\nVLLM_API_KEY guards /v1, as with vLLM.\n\"\"\"\n\nfrom __future__ import annotations\n\nimport argparse\nimport json\nimport os\nimport re\nimport signal\nimport socket\nimport socketserver\nimport sys\nimport threading\nimport time\nimport uuid\nfrom collections.abc import Callable, Iterator\nfrom http.server import BaseHTTPRequestHandler, ThreadingHTTPServer\nfrom typing import Any\n\nVERSION = \"0.32.0\"\n\nNO_CHAT_TEMPLATE = (\n    \"As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template \"\n    \"if the tokenizer does not define one.\"\n)\n\nJson = dict[str, Any]\n\n\nclass RequestError(Exception):\n    \"\"\"A request that is answered with an error, in vLLM''s shape.\"\"\"\n\n    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:\n        super().__init__(message)\n        self.status = status\n        self.body = {\"error\": {\"message\": message, \"type\": kind, \"param\": param, \"code\": status}}\n\n\ndef log(message: str) -> None:\n    \"\"\"Write a line as vLLM does.\"\"\"\n    print(f\"(APIServer pid={os.getpid()}) INFO {time.strftime(''%m-%d %H:%M:%S'')} [dummy.py:1] {message}\", flush=True)\n\n\nclass Engine:\n    \"\"\"The model that is not there, and its counters.\"\"\"\n\n    def __init__(self, options: argparse.Namespace) -> None:\n        self.options = options\n        self.health = 200\n        self._lock = threading.Lock()\n        self.counts = {\"running\": 0, \"prompt_tokens\": 0, \"generation_tokens\": 0, \"request_success\": 0}\n\n    def add(self, name: str, amount: int) -> None:\n        \"\"\"Count something.\"\"\"\n        with self._lock:\n            self.counts[name] += amount\n\n    def model(self) -> Json:\n        \"\"\"Describe the model as /v1/models does.\"\"\"\n        name = self.options.model\n        return {\"id\": name, \"object\": \"model\", \"created\": 0, \"owned_by\": \"vllm\", \"root\": name, \"max_model_len\": 4096}\n\n    def words(self, prompt: str, limit: int | None) -> tuple[list[str], str]:\n        \"\"\"Return the answer''s words, spaces included, and why it ends.\"\"\"\n        words = re.findall(r\"^[^ ]+| [^ ]*\", f\"[{self.options.model}] echo: {prompt}\")\n        return words[:limit], \"length\" if limit is not None and len(words) > limit else \"stop\"\n\n    def spoken(self, words: list[str]) -> Iterator[str]:\n        \"\"\"Say words one by one, at the pace that was asked for.\"\"\"\n        for word in words:\n            time.sleep(self.options.token_delay)\n            self.add(\"generation_tokens\", 1)\n            yield word\n\n    def metrics(self) -> str:\n        \"\"\"Return what Prometheus reads.\"\"\"\n        label = ''{engine=\"0\",model_name='' + json.dumps(self.options.model) + \"}\"\n        values = {\n            \"num_requests_running\": self.counts[\"running\"],\n            \"num_requests_waiting\": 0,\n            \"kv_cache_usage_perc\": min(1.0, self.counts[\"running\"] / 100),\n            **{\n                f\"{name}_total\": self.counts[name] for name in (\"prompt_tokens\", \"generation_tokens\", \"request_success\")\n            },\n        }\n        types = {name: \"counter\" if name.endswith(\"_total\") else \"gauge\" for name in values}\n        return \"\".join(f\"# TYPE vllm:{n} {types[n]}\\nvllm:{n}{label} {float(v)}\\n\" for n, v in values.items())\n\n\nclass Handler(BaseHTTPRequestHandler):\n    \"\"\"vLLM''s routes.\"\"\"\n\n    protocol_version = \"HTTP/1.1\"\n    disable_nagle_algorithm = True\n    server: Server\n\n    def answer(self) -> None:\n        \"\"\"Read the body whatever comes of it, so that the connection stays usable; then find the route.\"\"\"\n        engine = self.server.engine\n        routes: dict[str, Callable[[bytes], None]] = {\n            \"GET /health\": lambda _: self._send(b\"\", engine.health),\n            \"GET /ping\": lambda _: self._send(b\"\", engine.health),\n            \"GET /version\": lambda _: self._send({\"version\": VERSION}),\n            \"GET /metrics\": lambda _: self._send(engine.metrics().encode()),\n            \"GET /v1/models\": lambda _: self._send({\"object\": \"list\", \"data\": [engine.model()]}),\n            \"POST /v1/completions\": self._completions,\n            \"POST /v1/chat/completions\": self._chat,\n        }\n        if engine.options.debug:\n            routes[\"POST /debug/health\"] = self._set_health\n        path = self.path.partition(\"?\")[0]\n        key = os.environ.get(\"VLLM_API_KEY\")\n        body = self.rfile.read(int(self.headers.get(\"Content-Length\") or 0))\n        try:\n            if path.startswith(\"/v1\") and key and self.headers.get(\"Authorization\") != f\"Bearer {key}\":\n                self._send({\"error\": \"Unauthorized\"}, 401)\n            elif f\"{self.command} {path}\" in routes:\n                routes[f\"{self.command} {path}\"](body)\n            else:\n                self._send({\"detail\": \"Not Found\"}, 404)\n        except RequestError as error:\n            self._send(error.body, error.status)\n        except ConnectionError:\n            self.close_connection = True  # the client went away\n\n    do_GET = do_POST = answer  # noqa: N815\n\n    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002\n        \"\"\"Log a request as uvicorn does.\"\"\"\n        print(f\"INFO:     {self.address_string()}:{self.client_address[1]} - {format % args}\", flush=True)\n\n    def _set_health(self, body: bytes) -> None:\n        self.server.engine.health = int(parse(body).get(\"status\", 200))\n        self._send({\"status\": self.server.engine.health})\n\n    def _completions(self, body: bytes) -> None:\n        request = self._request(body)\n        prompt = request.get(\"prompt\")\n        if not isinstance(prompt, str) or not prompt:\n            raise RequestError(400, \"BadRequestError\", \"Either prompt or prompt_embeds must be provided.\", \"prompt\")\n        self._complete(request, prompt, prompt, chat=False, limit=tokens(request, \"max_tokens\") or 16)\n\n    def _chat(self, body: bytes) -> None:\n        request = self._request(body)\n        messages = request.get(\"messages\")\n        if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):\n            raise RequestError(400, \"BadRequestError\", \"messages: a list of messages is required.\", \"messages\")\n        if self.server.engine.options.no_chat_template:\n            raise RequestError(400, \"BadRequestError\", NO_CHAT_TEMPLATE)\n        texts = [text_of(message.get(\"content\")) for message in messages]\n        limit = tokens(request, \"max_completion_tokens\") or tokens(request, \"max_tokens\")\n        self._complete(request, texts[-1], \" \".join(texts), chat=True, limit=limit)\n\n    def _request(self, body: bytes) -> Json:\n        request = parse(body)\n        options = self.server.engine.options\n        model = request.get(\"model\", options.model)\n        if model != options.model:\n            raise RequestError(404, \"NotFoundError\", f\"The model `{model}` does not exist.\", \"model\")\n        if options.fail_prompts:\n            raise RequestError(500, \"InternalServerError\", \"EngineCore encountered an issue.\")\n        return request\n\n    def _complete(self, request: Json, prompt: str, read: str, *, chat: bool, limit: int | None) -> None:\n        \"\"\"Answer a prompt; `read` is all that counts as its tokens.\"\"\"\n        engine = self.server.engine\n        engine.add(\"running\", 1)\n        try:\n            words, finish = engine.words(prompt, limit)\n            size = len(read.split())\n            engine.add(\"prompt_tokens\", size)\n            usage = {\"prompt_tokens\": size, \"total_tokens\": size + len(words), \"completion_tokens\": len(words)}\n            head: Json = {\"id\": f\"cmpl-{uuid.uuid4().hex}\", \"created\": int(time.time()), \"model\": engine.options.model}\n            if request.get(\"stream\"):\n                wanted = (request.get(\"stream_options\") or {}).get(\"include_usage\")\n                self._stream(head, engine.spoken(words), finish, usage if wanted else None, chat=chat)\n            else:\n                text = \"\".join(engine.spoken(words))\n                said = {\"message\": {\"role\": \"assistant\", \"content\": text}} if chat else {\"text\": text}\n                head[\"object\"] = \"chat.completion\" if chat else \"text_completion\"\n                self._send({**self._reply(head, said, finish), \"usage\": usage})\n            engine.add(\"request_success\", 1)\n        finally:\n            engine.add(\"running\", -1)\n\n    def _reply(self, head: Json, said: Json, finish: str | None) -> Json:\n        choice = {\"index\": 0, **said, \"logprobs\": None, \"finish_reason\": finish}\n        return {**head, \"choices\": [] if self.server.engine.options.empty_choices else [choice]}\n\n    def _stream(self, head: Json, words: Iterator[str], finish: str, usage: Json | None, *, chat: bool) -> None:\n        \"\"\"Send server-sent events, one a word; a client that leaves ends it.\"\"\"\n        self.send_response(200)\n        self.send_header(\"Content-Type\", \"text/event-stream; charset=utf-8\")\n        self.send_header(\"Transfer-Encoding\", \"chunked\")\n        self.end_headers()\n        head[\"object\"] = \"chat.completion.chunk\" if chat else \"text_completion\"\n        if chat:\n            self._event(self._reply(head, {\"delta\": {\"role\": \"assistant\", \"content\": \"\"}}, None))\n        for word in words:\n            self._event(self._reply(head, {\"delta\": {\"content\": word}} if chat else {\"text\": word}, None))\n        self._event(self._reply(head, {\"delta\": {}} if chat else {\"text\": \"\"}, finish))\n        if usage is not None:\n            self._event({**head, \"choices\": [], \"usage\": usage})\n        self._event(\"[DONE]\")\n        self.wfile.write(b\"0\\r\\n\\r\\n\")\n\n    def _event(self, content: object) -> None:\n        chunk = f\"data: {content if isinstance(content, str) else json.dumps(content)}\\n\\n\".encode()\n        self.wfile.write(b\"%x\\r\\n%s\\r\\n\" % (len(chunk), chunk))\n\n    def _send(self, content: object, status: int = 200) -> None:\n        \"\"\"Send bytes as plain text, all else as JSON.\"\"\"\n        body = content if isinstance(content, bytes) else json.dumps(content).encode()\n        self.send_response(status)\n        self.send_header(\"Content-Type\", \"text/plain\" if isinstance(content, bytes) else \"application/json\")\n        self.send_header(\"Content-Length\", str(len(body)))\n        self.end_headers()\n        self.wfile.write(body)\n\n\nclass Server(ThreadingHTTPServer):\n    \"\"\"A thread for each connection. Bound at once, listening only when the engine is up, as vLLM does.\"\"\"\n\n    daemon_threads = True\n    request_queue_size = 128\n\n    def __init__(self, host: str, port: int, engine: Engine) -> None:\n        self.address_family = socket.AF_INET6 if \":\" in host else socket.AF_INET\n        self.engine = engine\n        super().__init__((host, port), Handler, bind_and_activate=False)\n        socketserver.TCPServer.server_bind(self)  # the base class would look up the host''s name, which may take long\n\n\ndef parse(body: bytes) -> Json:\n    \"\"\"Read a JSON object; raises `RequestError` (400).\"\"\"\n    try:\n        return dict(json.loads(body))\n    except (TypeError, ValueError) as error:\n        raise RequestError(400, \"Bad Request\", f\"JSON decode error: {error}\") from error\n\n\ndef tokens(request: Json, name: str) -> int | None:\n    \"\"\"Read a number of tokens; raises `RequestError` (400).\"\"\"\n    value = request.get(name)\n    if value is None or (type(value) is int and value > 0):\n        return value\n    raise RequestError(400, \"BadRequestError\", f\"{name} must be at least 1, got {value}.\", name)\n\n\ndef text_of(content: object) -> str:\n    \"\"\"Return a message''s text, whether it is a string or a list of parts.\"\"\"\n    parts = content if isinstance(content, list) else [{\"text\": content or \"\"}]\n    return \" \".join(str(part.get(\"text\", \"\")) for part in parts if isinstance(part, dict))\n\n\ndef arguments() -> argparse.Namespace:\n    \"\"\"Read the command line. Times are seconds; `--exit-after` counts from the start.\"\"\"\n    parser = argparse.ArgumentParser(description=__doc__)\n    parser.add_argument(\"--host\", default=\"127.0.0.1\")\n    parser.add_argument(\"--port\", type=int, default=8000)\n    parser.add_argument(\"--model\", default=\"dummy\")\n    for name in (\"--startup-delay\", \"--token-delay\"):\n        parser.add_argument(name, type=float, default=0.0)\n    parser.add_argument(\"--exit-after\", type=float)\n    parser.add_argument(\"--exit-code\", type=int, default=1)\n    for name in (\"--no-chat-template\", \"--fail-prompts\", \"--empty-choices\", \"--debug\"):\n        parser.add_argument(name, action=\"store_true\")\n    return parser.parse_args()\n\n\ndef crash(code: int) -> None:\n    \"\"\"End as a broken engine does.\"\"\"\n    print(\"RuntimeError: the engine was told to end by --exit-after\", file=sys.stderr, flush=True)\n    os._exit(code)\n\n\ndef main() -> None:\n    \"\"\"Serve until TERM or INT, then finish what is in flight.\"\"\"\n    options = arguments()\n    stop = threading.Event()\n    for number in (signal.SIGTERM, signal.SIGINT):\n        signal.signal(number, lambda *_: stop.set())\n    engine = Engine(options)\n    server = Server(options.host, options.port, engine)\n    if options.exit_after is not None:\n        threading.Timer(options.exit_after, crash, (options.exit_code,)).start()\n    log(f\"Initializing a V1 LLM engine (v{VERSION}) with config: model={options.model!r}\")\n    log(f\"Starting to load model {options.model}...\")\n    if stop.wait(options.startup_delay):\n        os._exit(128 + signal.SIGTERM)\n    log(\"Loading weights took 0.00 seconds\")\n    server.server_activate()\n    log(f\"Starting vLLM server on http://{options.host}:{server.server_address[1]}\")\n    threading.Thread(target=server.serve_forever, kwargs={\"poll_interval\": 0.05}, daemon=True).start()\n    print(\"INFO:     Application startup complete.\", flush=True)\n    stop.wait()\n    log(\"[shutdown] API server: shutdown triggered\")\n    server.shutdown()\n    server.server_close()\n    while engine.counts[\"running\"]:\n        time.sleep(0.01)\n    print(\"INFO:     Application shutdown complete.\", flush=True)\n    os._exit(0)\n\n\nif __name__ == \"__main__\":\n    main()\n"},"health":{"interval":2.0,"path":"/health","retries":3,"startup_timeout":120.0,"timeout":5.0},"image":{"definition":"# An image of some 60 KB that runs the host''s own programs; recipes that use it bind /usr:/usr:ro.\n# Built in a second, without a network: for programs that every node has, or that lie on a shared folder.\nBootstrap: scratch\n\n%setup\n    root=\"$APPTAINER_ROOTFS\"\n    # bound into, or written to; other destinations Apptainer makes as it starts\n    mkdir -p \"$root/usr\" \"$root/etc\" \"$root/tmp\" \"$root/var/tmp\" \"$root/proc\" \"$root/sys\" \"$root/dev\" \"$root/run\" \\\n        \"$root/root\" \"$root/home\" \"$root/opt\" \"$root/srv\" \"$root/mnt\" \"$root/recipe\"\n    chmod 1777 \"$root/tmp\" \"$root/var/tmp\"\n    for l in bin lib lib32 lib64 libx32 sbin; do\n        if [ -L \"/$l\" ]; then ln -s \"usr/$l\" \"$root/$l\"; fi\n    done\n    # the loader''s cache, for libraries outside its default folders; what Debian''s /usr/bin/awk and others point to\n    cp /etc/ld.so.cache \"$root/etc/\"\n    if [ -d /etc/alternatives ]; then cp -dR /etc/alternatives \"$root/etc/\"; fi\n    for f in nsswitch.conf protocols services localtime; do\n        if [ -e \"/etc/$f\" ]; then cp -L \"/etc/$f\" \"$root/etc/$f\"; fi\n    done\n    # Apptainer adds the user who runs it\n    printf ''root:x:0:0:root:/root:/bin/sh\\n'' >\"$root/etc/passwd\"\n    printf ''root:x:0:\\n'' >\"$root/etc/group\"\n    for f in hosts resolv.conf hostname; do : >\"$root/etc/$f\"; done\n\n%environment\n    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n","source":null},"kind":"service","max_failures":5,"model":"dummy","recipe":"inference/vllm_dummy","replicas":1,"resources":{"account":null,"constraint":null,"cpu":1,"extra_options":[],"gpu":0,"gpu_type":null,"gres":null,"memory_mb":256,"nodes":1,"partition":null,"qos":null,"reservation":null,"time_limit":60},"secret_variable":"VLLM_API_KEY","stop_grace":5.0,"update_strategy":"rolling"}','d87161a52989e3f0171b147834ece65f',1.79544607704709935185e+09);
CREATE TABLE services (
	id VARCHAR(32) DEFAULT (lower(hex(randomblob(4)))) NOT NULL, 
	name VARCHAR(160), 
	recipe_name VARCHAR(160) NOT NULL, 
	config JSON DEFAULT '{}' NOT NULL, 
	replicas INTEGER, 
	desired_state VARCHAR(16) DEFAULT 'running' NOT NULL, 
	generation INTEGER DEFAULT 1 NOT NULL, 
	version INTEGER DEFAULT 1 NOT NULL, 
	change_seq BIGINT DEFAULT 0 NOT NULL, 
	created_at DOUBLE DEFAULT 0 NOT NULL, 
	updated_at DOUBLE DEFAULT 0 NOT NULL, 
	deletion_requested_at DOUBLE, 
	purge INTEGER DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_services PRIMARY KEY (id), 
	CONSTRAINT ck_services_config_is_object CHECK (json_valid(config) AND json_type(config) = 'object'), 
	CONSTRAINT ck_services_desired_state_word CHECK (desired_state IN ('running', 'stopped')), 
	CONSTRAINT ck_services_id_characters CHECK (id NOT GLOB '*[^0-9a-zA-Z_]*'), 
	CONSTRAINT ck_services_id_length CHECK (length(id) BETWEEN 1 AND 32), 
	CONSTRAINT ck_services_name_length CHECK (length(name) BETWEEN 1 AND 160), 
	CONSTRAINT ck_services_recipe_name_length CHECK (length(recipe_name) BETWEEN 1 AND 160), 
	CONSTRAINT ck_services_replicas_range CHECK (replicas IS NULL OR (replicas BETWEEN 0 AND 1000 AND replicas = CAST(replicas AS INTEGER)))
);
INSERT INTO "services" VALUES('7f96e9xf','chat','inference/vllm_dummy','{}',NULL,'running',1,1,1,1.79544607514000678066e+09,1.79544607514000678066e+09,NULL,0);
CREATE TABLE services_replaced (id VARCHAR(32) NOT NULL, CONSTRAINT pk_services_replaced PRIMARY KEY (id));
CREATE TABLE user_events (
	id INTEGER NOT NULL, 
	service_id VARCHAR(32) NOT NULL, 
	action VARCHAR(32) NOT NULL, 
	message TEXT NOT NULL, 
	at DOUBLE NOT NULL, 
	CONSTRAINT pk_user_events PRIMARY KEY (id), 
	CONSTRAINT fk_user_events_service_id_services FOREIGN KEY(service_id) REFERENCES services (id) ON DELETE CASCADE
);
INSERT INTO "user_events" VALUES(1,'7f96e9xf','create','chat was created from inference/vllm_dummy.',1.7954460751351773739e+09);
CREATE INDEX ix_services_change_seq ON services (change_seq);
CREATE INDEX ix_services_name ON services (name);
CREATE UNIQUE INDEX uq_services_living_name ON services (name) WHERE deletion_requested_at IS NULL;
CREATE INDEX ix_attempts_not_gone ON attempts (service_id) WHERE gone_at IS NULL;
CREATE UNIQUE INDEX uq_attempts_incarnation ON attempts (service_id, replica, incarnation);
CREATE UNIQUE INDEX uq_attempts_open ON attempts (service_id, replica, lane) WHERE closed_at IS NULL;
CREATE INDEX ix_endpoints_change_seq ON endpoints (change_seq);
CREATE INDEX ix_endpoints_service_id ON endpoints (service_id);
CREATE INDEX ix_events_service_id ON events (service_id, id);
CREATE INDEX ix_user_events_service_id ON user_events (service_id);
CREATE TRIGGER services_insert AFTER INSERT ON services BEGIN
        UPDATE feed SET seq = seq + 1;
        UPDATE services SET
            name = coalesce(NEW.name, substr(NEW.recipe_name, length(rtrim(NEW.recipe_name, replace(NEW.recipe_name, '/', ''))) + 1) || '-' || NEW.id),
            generation = 1, version = 1, created_at = (julianday('now') - 2440587.5) * 86400.0, updated_at = (julianday('now') - 2440587.5) * 86400.0,
            change_seq = (SELECT seq FROM feed)
        WHERE id = NEW.id;
    END;
CREATE TRIGGER services_guard BEFORE UPDATE ON services BEGIN
        SELECT RAISE(ABORT, 'the id of a service never changes') WHERE NEW.id <> OLD.id;
        SELECT RAISE(ABORT, 'a service must have a name') WHERE NEW.name IS NULL;
        SELECT RAISE(ABORT, 'a deleted service can not be brought back: create a new one')
        WHERE OLD.deletion_requested_at IS NOT NULL AND NEW.deletion_requested_at IS NULL;
        SELECT RAISE(ABORT, 'generation, version and change_seq are counted by the database')
        WHERE CASE WHEN NEW.change_seq = OLD.change_seq
            THEN NEW.generation <> OLD.generation OR NEW.version <> OLD.version
            ELSE NEW.change_seq <> (SELECT seq FROM feed) END;
    END;
CREATE TRIGGER services_update AFTER UPDATE OF recipe_name, config, replicas, desired_state, deletion_requested_at, name, id, purge ON services WHEN OLD.change_seq > 0 BEGIN
        UPDATE feed SET seq = seq + 1;
        UPDATE services SET
            generation = OLD.generation + (NEW.recipe_name IS NOT OLD.recipe_name OR NEW.config IS NOT OLD.config OR NEW.replicas IS NOT OLD.replicas OR NEW.desired_state IS NOT OLD.desired_state OR NEW.deletion_requested_at IS NOT OLD.deletion_requested_at),
            version = OLD.version + 1, updated_at = (julianday('now') - 2440587.5) * 86400.0,
            change_seq = (SELECT seq FROM feed)
        WHERE id = NEW.id;
    END;
CREATE TRIGGER services_delete BEFORE DELETE ON services WHEN OLD.purge = 0 BEGIN
        UPDATE services SET deletion_requested_at = coalesce(deletion_requested_at, (julianday('now') - 2440587.5) * 86400.0) WHERE id = OLD.id;
        SELECT RAISE(IGNORE);
    END;
CREATE TRIGGER services_purge BEFORE DELETE ON services WHEN OLD.purge <> 0 BEGIN
        SELECT RAISE(ABORT, 'jobs of this service are not gone yet: delete it with purge = 0 first, and wait')
        FROM attempts WHERE service_id = OLD.id AND gone_at IS NULL;
        DELETE FROM attempts WHERE service_id = OLD.id; DELETE FROM endpoints WHERE service_id = OLD.id; DELETE FROM events WHERE service_id = OLD.id; DELETE FROM service_status WHERE service_id = OLD.id; DELETE FROM user_events WHERE service_id = OLD.id;
    END;
CREATE TRIGGER attempts_closed BEFORE UPDATE ON attempts WHEN OLD.closed_at IS NOT NULL BEGIN
        SELECT RAISE(ABORT, 'a closed attempt stays closed')
        WHERE NEW.closed_at IS NOT OLD.closed_at OR NEW.outcome IS NOT OLD.outcome;
    END;
CREATE TRIGGER leases_epoch BEFORE UPDATE ON leases WHEN NEW.epoch < OLD.epoch BEGIN
        SELECT RAISE(ABORT, 'an epoch only grows');
    END;
CREATE TRIGGER leases_kept BEFORE DELETE ON leases BEGIN
        SELECT RAISE(ABORT, 'an epoch only grows: a lease is never deleted');
    END;
CREATE TRIGGER endpoints_insert AFTER INSERT ON endpoints BEGIN
            UPDATE feed SET seq = seq + 1;
            UPDATE endpoints SET change_seq = (SELECT seq FROM feed) WHERE token = NEW.token;
        END;
CREATE TRIGGER endpoints_update AFTER UPDATE OF models, host, port, state ON endpoints BEGIN
            UPDATE feed SET seq = seq + 1;
            UPDATE endpoints SET change_seq = (SELECT seq FROM feed) WHERE token = NEW.token;
        END;
CREATE TRIGGER endpoints_delete AFTER DELETE ON endpoints BEGIN
            UPDATE feed SET seq = seq + 1;
            UPDATE endpoints SET change_seq = (SELECT seq FROM feed) WHERE service_id = OLD.service_id;
        END;
CREATE TRIGGER services_checked_insert BEFORE INSERT ON services BEGIN
        SELECT RAISE(ABORT, 'id must be 1 to 32 letters (a-z, A-Z), digits and underscores; left out, one is made') WHERE (typeof(NEW.id) <> 'text' OR length(CAST(NEW.id AS BLOB)) NOT BETWEEN 1 AND 32 OR length(CAST(NEW.id AS BLOB)) <> length(NEW.id) OR NEW.id GLOB '*[^0-9a-zA-Z_]*' OR NEW.id NOT GLOB '[0-9a-zA-Z_]*');
SELECT RAISE(ABORT, 'recipe_name must name a recipe, like inference/vllm, in 1 to 160 characters: `ai-factory recipes list` shows which there are') WHERE (NEW.recipe_name IS NULL OR typeof(NEW.recipe_name) <> 'text' OR trim(NEW.recipe_name) = '' OR length(NEW.recipe_name) > 160 OR instr(NEW.recipe_name, char(0)) > 0);
SELECT RAISE(ABORT, 'name must be 1 to 160 letters (a-z, A-Z), digits, dots, hyphens and underscores, a letter or digit first') WHERE NEW.name IS NOT NULL AND (typeof(NEW.name) <> 'text' OR length(CAST(NEW.name AS BLOB)) NOT BETWEEN 1 AND 160 OR length(CAST(NEW.name AS BLOB)) <> length(NEW.name) OR NEW.name GLOB '*[^0-9a-zA-Z._-]*' OR NEW.name NOT GLOB '[0-9a-zA-Z]*');
SELECT RAISE(ABORT, 'no name can be made of this recipe_name: give a name as well, 1 to 160 letters (a-z, A-Z), digits, dots, hyphens and underscores, a letter or digit first') WHERE NEW.name IS NULL AND (typeof((substr(NEW.recipe_name, length(rtrim(NEW.recipe_name, replace(NEW.recipe_name, '/', ''))) + 1) || '-' || NEW.id)) <> 'text' OR length(CAST((substr(NEW.recipe_name, length(rtrim(NEW.recipe_name, replace(NEW.recipe_name, '/', ''))) + 1) || '-' || NEW.id) AS BLOB)) NOT BETWEEN 1 AND 160 OR length(CAST((substr(NEW.recipe_name, length(rtrim(NEW.recipe_name, replace(NEW.recipe_name, '/', ''))) + 1) || '-' || NEW.id) AS BLOB)) <> length((substr(NEW.recipe_name, length(rtrim(NEW.recipe_name, replace(NEW.recipe_name, '/', ''))) + 1) || '-' || NEW.id)) OR (substr(NEW.recipe_name, length(rtrim(NEW.recipe_name, replace(NEW.recipe_name, '/', ''))) + 1) || '-' || NEW.id) GLOB '*[^0-9a-zA-Z._-]*' OR (substr(NEW.recipe_name, length(rtrim(NEW.recipe_name, replace(NEW.recipe_name, '/', ''))) + 1) || '-' || NEW.id) NOT GLOB '[0-9a-zA-Z]*');
SELECT RAISE(ABORT, 'services and targets are words of the API: choose another name') WHERE (lower(NEW.name) IN ('services', 'targets'));
SELECT RAISE(ABORT, 'config must be a JSON object, like {"model": "Qwen/Qwen2.5-0.5B-Instruct"}, or left out') WHERE (CASE WHEN typeof(NEW.config) <> 'text' OR NOT json_valid(NEW.config) THEN 1 ELSE json_type(NEW.config) <> 'object' END);
SELECT RAISE(ABORT, 'the character NUL (\u0000) can not stand in a config: take it out') WHERE (instr(replace(NEW.config, '\\', ''), '\u0000') > 0);
SELECT RAISE(ABORT, 'replicas must be a whole number from 0 to 1000, or NULL: what config or recipe say') WHERE (typeof(NEW.replicas) NOT IN ('integer', 'null') OR NEW.replicas NOT BETWEEN 0 AND 1000);
SELECT RAISE(ABORT, 'desired_state must be running or stopped; to be rid of a service, DELETE it') WHERE (NEW.desired_state IS NULL OR NEW.desired_state NOT IN ('running', 'stopped'));
SELECT RAISE(ABORT, 'purge must be 0: a DELETE leaves a tombstone, or 1: it removes the row, once no job is left') WHERE (typeof(NEW.purge) <> 'integer' OR NEW.purge NOT IN (0, 1));
SELECT RAISE(ABORT, 'a new service can not be deleted yet: leave deletion_requested_at out') WHERE (NEW.deletion_requested_at IS NOT NULL);
SELECT RAISE(ABORT, 'deletion_requested_at is a time in Unix seconds; better say DELETE FROM services') WHERE (typeof(NEW.deletion_requested_at) NOT IN ('real', 'integer', 'null') OR NEW.deletion_requested_at NOT BETWEEN 0 AND 253402300799);
        SELECT RAISE(ABORT, 'generation, version, change_seq, created_at and updated_at are set by the database: leave them out') WHERE NEW.generation <> 1 OR NEW.version <> 1 OR NEW.change_seq <> 0 OR NEW.created_at <> 0 OR NEW.updated_at <> 0;
        DELETE FROM services_replaced;
        INSERT INTO services_replaced (id) SELECT id FROM services
        WHERE id = NEW.id OR (name = NEW.name AND deletion_requested_at IS NULL);
    END;
CREATE TRIGGER services_not_replaced AFTER INSERT ON services BEGIN
        SELECT RAISE(ABORT, 'INSERT OR REPLACE would forget the jobs of the service that it replaces: use INSERT ... ON CONFLICT (name) WHERE deletion_requested_at IS NULL DO UPDATE SET ...') WHERE EXISTS (SELECT 1 FROM services_replaced);
    END;
CREATE TRIGGER services_checked_update BEFORE UPDATE ON services BEGIN
        SELECT RAISE(ABORT, 'recipe_name must name a recipe, like inference/vllm, in 1 to 160 characters: `ai-factory recipes list` shows which there are') WHERE NEW.recipe_name IS NOT OLD.recipe_name AND (NEW.recipe_name IS NULL OR typeof(NEW.recipe_name) <> 'text' OR trim(NEW.recipe_name) = '' OR length(NEW.recipe_name) > 160 OR instr(NEW.recipe_name, char(0)) > 0);
SELECT RAISE(ABORT, 'name must be 1 to 160 letters (a-z, A-Z), digits, dots, hyphens and underscores, a letter or digit first') WHERE NEW.name IS NOT NULL AND NEW.name IS NOT OLD.name AND (typeof(NEW.name) <> 'text' OR length(CAST(NEW.name AS BLOB)) NOT BETWEEN 1 AND 160 OR length(CAST(NEW.name AS BLOB)) <> length(NEW.name) OR NEW.name GLOB '*[^0-9a-zA-Z._-]*' OR NEW.name NOT GLOB '[0-9a-zA-Z]*');
SELECT RAISE(ABORT, 'services and targets are words of the API: choose another name') WHERE NEW.name IS NOT OLD.name AND (lower(NEW.name) IN ('services', 'targets'));
SELECT RAISE(ABORT, 'config must be a JSON object, like {"model": "Qwen/Qwen2.5-0.5B-Instruct"}, or left out') WHERE NEW.config IS NOT OLD.config AND (CASE WHEN typeof(NEW.config) <> 'text' OR NOT json_valid(NEW.config) THEN 1 ELSE json_type(NEW.config) <> 'object' END);
SELECT RAISE(ABORT, 'the character NUL (\u0000) can not stand in a config: take it out') WHERE NEW.config IS NOT OLD.config AND (instr(replace(NEW.config, '\\', ''), '\u0000') > 0);
SELECT RAISE(ABORT, 'replicas must be a whole number from 0 to 1000, or NULL: what config or recipe say') WHERE NEW.replicas IS NOT OLD.replicas AND (typeof(NEW.replicas) NOT IN ('integer', 'null') OR NEW.replicas NOT BETWEEN 0 AND 1000);
SELECT RAISE(ABORT, 'desired_state must be running or stopped; to be rid of a service, DELETE it') WHERE NEW.desired_state IS NOT OLD.desired_state AND (NEW.desired_state IS NULL OR NEW.desired_state NOT IN ('running', 'stopped'));
SELECT RAISE(ABORT, 'purge must be 0: a DELETE leaves a tombstone, or 1: it removes the row, once no job is left') WHERE NEW.purge IS NOT OLD.purge AND (typeof(NEW.purge) <> 'integer' OR NEW.purge NOT IN (0, 1));
SELECT RAISE(ABORT, 'deletion_requested_at is a time in Unix seconds; better say DELETE FROM services') WHERE NEW.deletion_requested_at IS NOT OLD.deletion_requested_at AND (typeof(NEW.deletion_requested_at) NOT IN ('real', 'integer', 'null') OR NEW.deletion_requested_at NOT BETWEEN 0 AND 253402300799);
        SELECT RAISE(ABORT, 'this name is taken by another service: choose another, or stop and DELETE that one first')
        WHERE NEW.name IS NOT OLD.name AND NEW.deletion_requested_at IS NULL
            AND EXISTS (SELECT 1 FROM services WHERE name = NEW.name AND deletion_requested_at IS NULL AND id <> OLD.id);
        SELECT RAISE(ABORT, 'generation, version, change_seq, created_at and updated_at are set by the database: leave them out')
        WHERE NEW.change_seq = OLD.change_seq AND (NEW.generation IS NOT OLD.generation OR NEW.version IS NOT OLD.version OR NEW.change_seq IS NOT OLD.change_seq OR NEW.created_at IS NOT OLD.created_at OR NEW.updated_at IS NOT OLD.updated_at);
    END;
CREATE VIEW service_overview AS SELECT
        s.id, s.name, s.recipe_name AS recipe, s.desired_state,
        CASE
            WHEN s.desired_state <> 'running' OR s.deletion_requested_at IS NOT NULL THEN 'cancelled'
            WHEN (SELECT status FROM (SELECT key AS place, json_extract(value, '$.type') AS type, json_extract(value, '$.status') AS status, json_extract(value, '$.reason') AS reason, json_extract(value, '$.message') AS message FROM json_each(t.conditions)) AS found WHERE type = 'Accepted' ORDER BY place LIMIT 1) = 'False' THEN 'failed'
            WHEN (SELECT status FROM (SELECT key AS place, json_extract(value, '$.type') AS type, json_extract(value, '$.status') AS status, json_extract(value, '$.reason') AS reason, json_extract(value, '$.message') AS message FROM json_each(t.conditions)) AS found WHERE type = 'Available' ORDER BY place LIMIT 1) = 'True' THEN 'running'
            ELSE CASE (SELECT reason FROM (SELECT key AS place, json_extract(value, '$.type') AS type, json_extract(value, '$.status') AS status, json_extract(value, '$.reason') AS reason, json_extract(value, '$.message') AS message FROM json_each(t.conditions)) AS found WHERE type = 'Progressing' ORDER BY place LIMIT 1)
                WHEN 'BuildingImage' THEN 'building'
                WHEN 'Starting' THEN 'starting'
                WHEN 'Completed' THEN 'completed'
                WHEN 'Failed' THEN 'failed'
                ELSE 'pending'
            END
        END AS status,
        CAST(coalesce(s.replicas, t.wanted_replicas) AS INTEGER) AS replicas,
        coalesce(t.ready_replicas, 0) AS ready,
        coalesce((SELECT message FROM (SELECT key AS place, json_extract(value, '$.type') AS type, json_extract(value, '$.status') AS status, json_extract(value, '$.reason') AS reason, json_extract(value, '$.message') AS message FROM json_each(t.conditions)) AS found WHERE message <> '' AND (type = 'Accepted' AND status = 'False' OR type = 'Observed' AND status <> 'True' OR type = 'Progressing') ORDER BY CASE type WHEN 'Accepted' THEN 1 WHEN 'Observed' THEN 2 ELSE 3 END, place LIMIT 1), '') AS message,
        (SELECT 'http://' || CASE WHEN host LIKE '%:%' THEN '[' || host || ']' ELSE host END || ':' || port AS url FROM endpoints WHERE service_id = s.id AND state = 'ready' AND s.desired_state = 'running' AND s.deletion_requested_at IS NULL ORDER BY replica, token LIMIT 1) AS endpoint,
        (SELECT group_concat(url, ' ') FROM (SELECT 'http://' || CASE WHEN host LIKE '%:%' THEN '[' || host || ']' ELSE host END || ':' || port AS url FROM endpoints WHERE service_id = s.id AND state = 'ready' AND s.desired_state = 'running' AND s.deletion_requested_at IS NULL ORDER BY replica, token)) AS endpoints,
        s.generation,
        coalesce(t.observed_generation, 0) AS observed_generation,
        strftime('%Y-%m-%dT%H:%M:%f', CAST(round(s.created_at * 1000000) AS INTEGER) / 1000 / 1000.0, 'unixepoch') || '+00:00' AS created_at,
        strftime('%Y-%m-%dT%H:%M:%f', CAST(round(s.updated_at * 1000000) AS INTEGER) / 1000 / 1000.0, 'unixepoch') || '+00:00' AS updated_at,
        strftime('%Y-%m-%dT%H:%M:%f', CAST(round(s.deletion_requested_at * 1000000) AS INTEGER) / 1000 / 1000.0, 'unixepoch') || '+00:00' AS deleted_at
    FROM services AS s LEFT JOIN service_status AS t ON t.service_id = s.id;
CREATE VIEW attempt_history AS SELECT
        s.name AS service, a.service_id, a.replica, a.incarnation, a.generation, a.token, a.job_id, a.node,
        strftime('%Y-%m-%dT%H:%M:%f', CAST(round(a.intent_at * 1000000) AS INTEGER) / 1000 / 1000.0, 'unixepoch') || '+00:00' AS intent_at, strftime('%Y-%m-%dT%H:%M:%f', CAST(round(a.submitted_at * 1000000) AS INTEGER) / 1000 / 1000.0, 'unixepoch') || '+00:00' AS submitted_at, strftime('%Y-%m-%dT%H:%M:%f', CAST(round(a.claimed_at * 1000000) AS INTEGER) / 1000 / 1000.0, 'unixepoch') || '+00:00' AS claimed_at, strftime('%Y-%m-%dT%H:%M:%f', CAST(round(a.started_at * 1000000) AS INTEGER) / 1000 / 1000.0, 'unixepoch') || '+00:00' AS started_at, strftime('%Y-%m-%dT%H:%M:%f', CAST(round(a.launched_at * 1000000) AS INTEGER) / 1000 / 1000.0, 'unixepoch') || '+00:00' AS launched_at, strftime('%Y-%m-%dT%H:%M:%f', CAST(round(a.serving_at * 1000000) AS INTEGER) / 1000 / 1000.0, 'unixepoch') || '+00:00' AS serving_at, strftime('%Y-%m-%dT%H:%M:%f', CAST(round(a.ready_at * 1000000) AS INTEGER) / 1000 / 1000.0, 'unixepoch') || '+00:00' AS ready_at, strftime('%Y-%m-%dT%H:%M:%f', CAST(round(a.ends_at * 1000000) AS INTEGER) / 1000 / 1000.0, 'unixepoch') || '+00:00' AS ends_at, strftime('%Y-%m-%dT%H:%M:%f', CAST(round(a.closed_at * 1000000) AS INTEGER) / 1000 / 1000.0, 'unixepoch') || '+00:00' AS closed_at, strftime('%Y-%m-%dT%H:%M:%f', CAST(round(a.gone_at * 1000000) AS INTEGER) / 1000 / 1000.0, 'unixepoch') || '+00:00' AS gone_at, CASE WHEN a.intent_at IS NOT NULL THEN max(0.0, round(coalesce(a.started_at, coalesce(a.closed_at, ((julianday('now') - 2440587.5) * 86400.0))) - coalesce(a.submitted_at, a.intent_at), 1)) END AS seconds_queued, CASE WHEN a.started_at IS NOT NULL THEN max(0.0, round(coalesce(a.ready_at, coalesce(a.closed_at, ((julianday('now') - 2440587.5) * 86400.0))) - a.started_at, 1)) END AS seconds_starting, CASE WHEN a.ready_at IS NOT NULL THEN max(0.0, round(coalesce(a.closed_at, ((julianday('now') - 2440587.5) * 86400.0)) - a.ready_at, 1)) END AS seconds_ready, a.outcome, a.exit_code, a.message
    FROM attempts AS a JOIN services AS s ON s.id = a.service_id;
CREATE TRIGGER service_overview_insert INSTEAD OF INSERT ON service_overview BEGIN SELECT RAISE(ABORT, 'service_overview is for reading only: write to the table services instead'); END;
CREATE TRIGGER service_overview_update INSTEAD OF UPDATE ON service_overview BEGIN SELECT RAISE(ABORT, 'service_overview is for reading only: write to the table services instead'); END;
CREATE TRIGGER service_overview_delete INSTEAD OF DELETE ON service_overview BEGIN SELECT RAISE(ABORT, 'service_overview is for reading only: write to the table services instead'); END;
CREATE TRIGGER attempt_history_insert INSTEAD OF INSERT ON attempt_history BEGIN SELECT RAISE(ABORT, 'attempt_history is for reading only: write to the table services instead'); END;
CREATE TRIGGER attempt_history_update INSTEAD OF UPDATE ON attempt_history BEGIN SELECT RAISE(ABORT, 'attempt_history is for reading only: write to the table services instead'); END;
CREATE TRIGGER attempt_history_delete INSTEAD OF DELETE ON attempt_history BEGIN SELECT RAISE(ABORT, 'attempt_history is for reading only: write to the table services instead'); END;
COMMIT;
