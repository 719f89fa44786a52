"""References and manifests: what a digest covers, and which texts are references."""

from __future__ import annotations

from typing import Any

import pytest
from espalier_sdk import ArtifactRef, FileEntry, Manifest, PluginNeed, PluginUse
from espalier_sdk.artifacts import KINDS, FileList, canonical_json, digest_of
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

HEX = "0123456789abcdef" * 4
names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
refs = st.builds(ArtifactRef, kind=st.sampled_from(KINDS), name=names, digest=digests)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(refs)
def test_a_reference_reads_back_from_its_text(ref: ArtifactRef) -> None:
    assert ArtifactRef.parse(str(ref)) == ref
    assert str(ref).startswith(ref.short())
    assert len(ref.short().partition("@")[2]) == 12


@pytest.mark.parametrize(
    "text",
    [
        f"model/a@{HEX[:12]}",
        f"endpoint/a@{HEX}",
        f"model/A@{HEX}",
        f"model/../etc@{HEX}",
        f"model/a@{HEX.upper()}",
        f"model/a@{HEX}\n",
        f"model/{'a' * 64}@{HEX}",
        "model/a",
        "",
    ],
)
def test_a_text_that_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a reference: kind/name@<64 hex> with kind one of corpus, dataset"):
        ArtifactRef.parse(text)


def _manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "kind": "model",
        "name": "lora",
        "files": (FileEntry(path="a.txt", size_bytes=1, sha256=HEX),),
        "what": {"rank": 8},
        "plugins": (PluginUse(group="g", name="n", distribution="d", version="1", sha256=HEX),),
    }
    return Manifest(**fields | changes)


def test_metrics_and_provenance_are_outside_the_digest() -> None:
    assert _manifest(metrics={"f1": 1.0}, provenance={"seconds": 3, "attempt": "x"}).digest() == _manifest().digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "dataset"},
        {"name": "other"},
        {"files": (FileEntry(path="b.txt", size_bytes=1, sha256=HEX),)},
        {"files": (FileEntry(path="a.txt", size_bytes=2, sha256=HEX),)},
        {"files": (FileEntry(path="a.txt", size_bytes=1, sha256=HEX[::-1]),)},
        {"inputs": (ArtifactRef(kind="corpus", name="c", digest=HEX),)},
        {"what": {"rank": 9}},
        {"plugins": ()},
        {"requires": (PluginNeed(group="g", name="n"),)},
        {"schema_version": 2},
    ],
)
def test_everything_else_is_inside_the_digest(changes: dict[str, Any]) -> None:
    assert _manifest(**changes).digest() != _manifest().digest()


def test_a_manifest_survives_its_json_and_names_its_reference() -> None:
    manifest = _manifest()
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert str(manifest.ref()) == f"model/lora@{manifest.digest()}"


def test_a_manifest_cannot_be_changed_or_extended() -> None:
    with pytest.raises(ValidationError):
        _manifest(author="me")
    with pytest.raises(ValidationError):
        _manifest().name = "other"


@given(st.dictionaries(st.text(), jsons, max_size=4))
def test_the_digest_of_a_mapping_does_not_depend_on_its_order(value: dict[str, Any]) -> None:
    assert digest_of(value) == digest_of(dict(reversed(value.items())))


def test_canonical_json_refuses_what_json_cannot_say() -> None:
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_a_list_of_files_enters_the_digest_and_its_absence_changes_none() -> None:
    listed = FileList(count=2, size_bytes=9, sha256="a" * 64)
    plain = Manifest(kind="dataset", name="x", files=())
    assert "file_list" in plain.model_dump()
    assert plain.digest() == digest_of(
        {key: value for key, value in plain.model_dump(mode="json").items() if key not in _LEFT_OUT}
    )
    one = Manifest(kind="dataset", name="x", files=(), file_list=listed)
    other = Manifest(kind="dataset", name="x", files=(), file_list=listed.model_copy(update={"sha256": "b" * 64}))
    assert len({plain.digest(), one.digest(), other.digest()}) == 3
    assert one.size_bytes == 9


_LEFT_OUT = ("metrics", "provenance", "file_list")
