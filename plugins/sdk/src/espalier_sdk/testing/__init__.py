"""Conformance kits: a plugin's own test is a few lines that call one of these (extra `espalier-sdk[testing]`)."""

from __future__ import annotations

from espalier_sdk.testing.base_model import check_base_model
from espalier_sdk.testing.control import check_control
from espalier_sdk.testing.engine import check_engine
from espalier_sdk.testing.fourbit import check_beside_four_bits
from espalier_sdk.testing.learner import check_learner
from espalier_sdk.testing.metric import check_metric
from espalier_sdk.testing.peft import check_peft_method
from espalier_sdk.testing.plugin import check_plugin
from espalier_sdk.testing.source import check_source
from espalier_sdk.testing.strategy import check_strategy
from espalier_sdk.testing.task import check_task
from espalier_sdk.testing.transform import check_corpus_transform, check_fitted_transform, check_record_transform

__all__ = [
    "check_base_model",
    "check_beside_four_bits",
    "check_control",
    "check_corpus_transform",
    "check_engine",
    "check_fitted_transform",
    "check_learner",
    "check_metric",
    "check_peft_method",
    "check_plugin",
    "check_record_transform",
    "check_source",
    "check_strategy",
    "check_task",
]
