"""The browsable page: one file of ours that renders an OpenAPI document and needs nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from litestar import MediaType, Response

_PAGE = Path(__file__).with_name("docs.html")


def docs_page(document: str, *, other: str) -> Response[str]:
    """Return the page for the document at that path, with a link to the `other` page.

    The policy lets the page run its own script and talk to its own host, nothing else.
    """
    html = _PAGE.read_text(encoding="utf-8").replace("{{document}}", document).replace("{{other}}", other)
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Response(html, media_type=MediaType.HTML, headers={"Content-Security-Policy": policy})


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
