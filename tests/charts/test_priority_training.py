from __future__ import annotations


def test_the_class_is_made_where_it_is_asked_for(chart):
    assert not chart().of("PriorityClass")
    assert chart(ci="gpu-pools").one("PriorityClass", "espalier-training")["value"] == -10
