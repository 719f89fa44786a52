"""Secrets in a spec: `{secret: NAME}` stands for an environment variable, read when a plugin is made and never before.

What is digested, written or shown is the name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from espalier_sdk.errors import SpecError

_KEY = "secret"


def with_secrets(node: Any) -> Any:
    """Returns a config with the values of its secrets; SpecError where the environment has one not."""
    if (name := _name(node)) is not None:
        if not os.environ.get(name):
            raise SpecError(
                f"the environment has no variable {name}",
                code="no_secret",
                given=f"{{secret: {name}}}",
                remedy=f"set {name} where the pipeline runs, on every node of a cluster",
            )
        return os.environ[name]
    if isinstance(node, dict):
        return {key: with_secrets(value) for key, value in node.items()}
    return [with_secrets(value) for value in node] if isinstance(node, list) else node


def without_secrets(text: str, config: Any) -> str:
    """Returns a text in which the values of a config's secrets are replaced by their names."""
    for name in _names(config):
        if value := os.environ.get(name):
            text = text.replace(value, f"{{secret: {name}}}")
    return text


def _names(node: Any) -> Iterator[str]:
    if (name := _name(node)) is not None:
        yield name
    elif isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _names(value)


def _name(node: Any) -> str | None:
    only = isinstance(node, dict) and set(node) == {_KEY} and isinstance(node[_KEY], str)
    return node[_KEY] if only else None
