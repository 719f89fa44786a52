"""The transform `anonymize`: each kind found, overlaps resolved, no network, no language model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from espalier_anonymize import Anonymize, AnonymizeConfig
from espalier_anonymize.finding import Span, apart, finder
from espalier_sdk.errors import DataError
from espalier_sdk.testing import check_record_transform
from pydantic import ValidationError


def anonymised(text: str, **config: Any) -> str:
    rows = Anonymize(AnonymizeConfig.model_validate(config)).apply(pa.table({"text": [text]}))
    result: str = rows.column("text").to_pylist()[0]
    return result


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Write to anna.b@example.com now", "Write to <EMAIL> now"),
        ("call +49 30 901820 or (212) 555-0123.", "call <PHONE> or <PHONE>."),
        ("my number is 020 7946 0958", "my number is <PHONE>"),
        ("card 4111 1111 1111 1111 please", "card <CARD> please"),
        ("pay to DE89 3704 0044 0532 0130 00 today", "pay to <IBAN> today"),
        ("from 10.0.0.1 and fe80::1ff:fe23:4567:890a", "from <IP> and <IP>"),
        ("see https://example.org/x?y=1, ok", "see <URL> ok"),
        ("www.example.co.uk is down", "<URL> is down"),
    ],
)
def test_each_kind_is_replaced_by_its_name(text: str, wanted: str) -> None:
    assert anonymised(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "order 12345 of 2024-05-01 cost 189.00",
        "T-10029, ticket no. 778",
        "4111 1111 1111 1112 fails its check digit",
        "tell me.please",
        "a :: b",
        "version 1.2.3",
        "",
    ],
)
def test_what_is_not_personal_stays(text: str) -> None:
    assert anonymised(text) == text


def test_only_the_chosen_kinds_and_regions_are_looked_for() -> None:
    text = "anna@example.com, 01 44 55 66 77"
    assert anonymised(text, kinds=["email"]) == "<EMAIL>, 01 44 55 66 77"
    assert anonymised(text, kinds=["phone"], regions=["US"]) == text
    assert anonymised(text, kinds=["phone"], regions=["FR"]) == "anna@example.com, <PHONE>"


def test_what_is_found_can_be_removed() -> None:
    assert anonymised("mail anna@example.com now", style="remove") == "mail  now"


def test_anonymize_passes_its_kit() -> None:
    rows = pa.table({"text": ["a@example.com", None, "none"], "n": [1, 2, 3], "other": ["", "10.0.0.1", "x"]})
    check_record_transform(
        "anonymize",
        {},
        rows,
        expected=[
            {"text": "<EMAIL>", "n": 1, "other": ""},
            {"text": None, "n": 2, "other": "<IP>"},
            {"text": "none", "n": 3, "other": "x"},
        ],
    )


def test_only_the_chosen_columns_are_searched_and_they_must_be_text() -> None:
    rows = pa.table({"text": ["a@example.com"], "owner": ["a@example.com"], "n": [1]})
    result = Anonymize(AnonymizeConfig(columns=("text",))).apply(rows)
    assert result.to_pylist() == [{"text": "<EMAIL>", "owner": "a@example.com", "n": 1}]
    with pytest.raises(DataError, match="column 'n'"):
        Anonymize(AnonymizeConfig(columns=("n",))).apply(rows)


def test_of_overlapping_spans_the_surer_stays_then_the_longer_then_the_first() -> None:
    sure, long, short, late = (
        Span(5, 10, "email", 1.0),
        Span(0, 8, "url", 0.5),
        Span(8, 12, "ip", 0.5),
        Span(20, 24, "ip", 0.5),
    )
    assert apart([long, short, sure, late]) == [sure, late]
    assert apart([short, long]) == [long, short]
    assert apart([Span(0, 4, "ip", 0.5), Span(0, 6, "url", 0.5)]) == [Span(0, 6, "url", 0.5)]
    assert apart([Span(0, 4, "phone", 0.4), Span(0, 4, "card", 0.4)])[0].kind == "phone"


def test_no_name_is_looked_up_and_no_engine_is_loaded() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise SystemExit('the network was asked')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from espalier_anonymize.anonymize import KINDS\n"
        "from espalier_anonymize.finding import finder\n"
        "assert finder(KINDS, ('US',))('anna@example.com')[0].kind == 'email'\n"
        "print(*[name for name in ('torch', 'transformers', 'stanza') if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0 and not run.stdout.strip(), run.stdout + run.stderr
    assert socket.socket.connect is not None


@pytest.mark.parametrize("config", [{"kinds": []}, {"kinds": ["name"]}, {"regions": ["de"]}, {"style": "x"}])
def test_a_config_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AnonymizeConfig.model_validate(config)


SHARED = Path(os.environ.get("ESPALIER_TEST_DATA", Path(__file__).parents[4] / "shared" / "data")) / "presidio_pii_a"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs the development data in {SHARED}")
def test_mail_addresses_links_and_ip_addresses_of_the_development_data_are_all_found() -> None:
    kinds = {"EMAIL_ADDRESS": "email", "DOMAIN_NAME": "url", "IP_ADDRESS": "ip"}
    find = finder(("email", "url", "ip"), ("US",))
    wanted = found = 0
    for row in json.loads(next(SHARED.glob("*.json")).read_text(encoding="utf-8")):
        spans = find(row["full_text"])
        for entity in row["spans"]:
            if entity["entity_type"] in kinds:
                wanted += 1
                found += any(
                    span.start < entity["end_position"] and span.end > entity["start_position"] for span in spans
                )
    assert wanted > 40 and found == wanted
