"""A registry on this host that holds one name, as the OCI distribution specification wants it read."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Registry:
    """Serves what was pushed, by tag and by digest."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._tags: dict[str, str] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, _, what = self.path.rpartition("/")
                digest = registry._tags.get(what, what)
                content = b"{}" if self.path == "/v2/" else registry._blobs.get(digest)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                if "/manifests/" in self.path and content is not None:
                    self.send_header("Content-Type", MANIFEST)
                    self.send_header("Docker-Content-Digest", digest)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content or b"")

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.name = f"docker://127.0.0.1:{self._server.server_port}/site/image"

    def push(self, tag: str, text: str) -> str:
        """Have the tag name an image with one file, /text; return the image's digest."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo("text")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
        layer = gzip.compress(packed.getvalue(), mtime=0)
        root = {"type": "layers", "diff_ids": [_digest(packed.getvalue())]}
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": root}).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": self._put(config, CONFIG),
                "layers": [self._put(layer, LAYER)],
            }
        ).encode()
        self._tags[tag] = str(self._put(manifest, MANIFEST)["digest"])
        return self._tags[tag]

    def _put(self, content: bytes, kind: str) -> dict[str, Any]:
        digest = _digest(content)
        self._blobs[digest] = content
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
