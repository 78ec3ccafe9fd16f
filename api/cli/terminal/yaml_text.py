"""Values as YAML."""

from __future__ import annotations

import io
import json
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

_UNPRINTABLE = re.compile("[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def yaml_text(value: Any) -> str:
    """Return a value that JSON knows as YAML; what is read of it is the same."""
    text = _written(value)
    if _reads_as(text, value):
        return text
    # YAML's writer and reader do not agree on every text; JSON is YAML too, once control characters are escaped.
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same as JSON: 1 is neither 1.0 nor true."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _written(value: Any) -> str:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    yaml.width = 4096
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()


def _reads_as(text: str, value: Any) -> bool:
    try:
        return same_json(YAML(typ="safe", pure=True).load(text), value)
    except (YAMLError, ValueError):
        return False
