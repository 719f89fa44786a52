"""A base of the hub, from a small hub of our own on loopback: pinned, without pickle and code, and from the cache."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from espalier_hub import HuggingFace
from espalier_sdk import DataError
from espalier_sdk.testing import check_base_model
from espalier_sdk.testing.tiny import no_network, write_base
from huggingface_hub import constants
from pydantic import ValidationError

COMMIT, TOKEN = "0123456789abcdef0123456789abcdef01234567", "hf_secret"


class Hub(ThreadingHTTPServer):
    """Answers as the hub does for one repository at one commit; `files` may change between tests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.private = False
        self.seen: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.server.seen.append(path)
        if self.server.private and self.headers.get("authorization") != f"Bearer {TOKEN}":
            self._send(401, b"{}", {"x-error-code": "GatedRepo", "x-error-message": "Access is restricted"})
        elif path == f"/api/models/our/encoder/tree/{COMMIT}":
            listed = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.server.files.items()
            ]
            self._send(200, json.dumps(listed).encode(), {"content-type": "application/json"})
        elif path.startswith("/api/models/our/encoder/"):
            self._send(404, b"{}", {"x-error-code": "RevisionNotFound"})
        elif (name := path.removeprefix(f"/our/encoder/resolve/{COMMIT}/")) in self.server.files:
            data = self.server.files[name]
            self._send(200, data, {"x-repo-commit": COMMIT, "etag": f'"{hashlib.sha1(data).hexdigest()}"'})
        else:
            self._send(404, b"{}", {"x-error-code": "RepoNotFound"})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Stays quiet."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("model")
    write_base(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(model: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server = Hub()
    server.files = dict(model)
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def base(**config: str) -> HuggingFace:
    return HuggingFace(HuggingFace.Config.model_validate({"repository": "our/encoder", "revision": COMMIT, **config}))


def test_huggingface_passes_its_kit(hub: Hub) -> None:
    config = {"repository": "our/encoder", "revision": COMMIT}
    refused = [{}, {"repository": "our/encoder"}, config | {"revision": "main"}, config | {"repository": "../etc"}]
    check_base_model("huggingface", config=config, refused=refused, offline=False)


def test_pickle_code_and_other_formats_are_not_even_downloaded(hub: Hub, tmp_path: Path) -> None:
    strange = ("pytorch_model.bin", "modeling.py", "onnx/model.safetensors", "README.md")
    hub.files |= dict.fromkeys(strange, b"anything")
    base().fetch(COMMIT, tmp_path)
    assert not [path for path in hub.seen if path.endswith(strange)]
    assert not [path for path in tmp_path.rglob("*") if path.name in strange]
    assert (tmp_path / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_what_was_fetched_once_needs_no_network(hub: Hub, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    base().fetch(COMMIT, first)
    with no_network():
        base().fetch(COMMIT, second)
    assert {path.name for path in second.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_a_branch_is_refused_with_the_way_to_a_commit() -> None:
    with pytest.raises(ValidationError, match="'main' is no commit: a branch or tag may move"):
        base(revision="main")


def test_a_gated_repository_opens_with_its_token_only(hub: Hub, tmp_path: Path) -> None:
    hub.private = True
    with pytest.raises(DataError, match="not there, or not for this token") as refused:
        base().fetch(COMMIT, tmp_path)
    assert "token: {secret: NAME}" in str(refused.value.problems[0].remedy)
    base(token=TOKEN).fetch(COMMIT, tmp_path)
    assert (tmp_path / "config.json").is_file()
    assert TOKEN not in repr(HuggingFace.Config(repository="our/encoder", revision=COMMIT, token=TOKEN))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model.safetensors": None, "pytorch_model.bin": b"x"}, "has pickle weights only"),
        ({"model.safetensors": None, "README.md": b"x"}, "holds no model"),
        ({"config.json": b'{"auto_map": {"AutoModel": "modeling.Ours"}}'}, "architecture as code"),
        ({"config.json": b'{"model_type": "ours"}'}, "the architecture 'ours', which transformers does not have"),
        ({"config.json": b"{}"}, "names no `model_type`"),
    ],
)
def test_what_cannot_be_opened_safely_is_refused(
    hub: Hub, tmp_path: Path, change: dict[str, bytes | None], said: str
) -> None:
    hub.files = {name: data for name, data in {**hub.files, **change}.items() if data is not None}
    with pytest.raises(DataError, match=said):
        base().fetch(COMMIT, tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_an_architecture_of_transformers_is_opened_whatever_code_the_repository_has(hub: Hub, tmp_path: Path) -> None:
    pointer = {"AutoConfig": "other/code--modeling.Ours", "AutoModel": "other/code--modeling.Ours"}
    config = json.loads(hub.files["config.json"])
    hub.files["config.json"] = json.dumps(config | {"auto_map": pointer}).encode()
    base().fetch(COMMIT, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8")) == config


def test_an_unknown_commit_and_an_unknown_repository_are_told_apart(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="our/encoder has no commit ffff"):
        HuggingFace(HuggingFace.Config(repository="our/encoder", revision="f" * 40)).fetch("f" * 40, tmp_path)
    with pytest.raises(DataError, match="our/other is not there"):
        HuggingFace(HuggingFace.Config(repository="our/other", revision=COMMIT)).fetch(COMMIT, tmp_path)


def test_without_hub_and_cache_the_remedy_names_both(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its retries
    with pytest.raises(DataError, match="not in the cache, and the hub is not reached") as refused:
        base().fetch(COMMIT, tmp_path)
    assert "HF_HOME" in str(refused.value.problems[0].remedy)
