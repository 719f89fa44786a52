"""Personal data replaced by the name of its kind: mail, phone, card, IBAN, IP, URL."""

from __future__ import annotations

from espalier_anonymize.anonymize import Anonymize, AnonymizeConfig, Kind

__all__ = ["Anonymize", "AnonymizeConfig", "Kind"]
