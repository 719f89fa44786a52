"""What a report says about what training left of a base."""

from __future__ import annotations

from espalier_pipeline.forgetting import told


def test_the_sentence_of_an_encoder_tells_agreement_and_where_the_texts_went() -> None:
    figures = {"rank_correlation": 0.873, "correlation": 0.9, "cosine_before": 0.081, "cosine_after": 0.4}
    said = told({"measure": "similarity", **figures})
    assert "rank correlation of 0.87" in said
    assert "from 0.08 to 0.40" in said


def test_the_sentence_of_a_decoder_tells_how_much_worse_it_writes() -> None:
    said = told({"measure": "likelihood", "perplexity_before": 21.34, "perplexity_after": 32.01})
    assert "from 21.3 to 32, 1.50 times" in said
