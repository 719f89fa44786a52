"""The names of columns that stages add to a user's own, and of those that tasks, engines and metrics agree on."""

from __future__ import annotations

RESERVED_PREFIX = "espalier_"

# Every batch that a source yields carries these three beside the user's columns.
ORIGIN = "espalier_origin"  # str: the file (its name, no folder of a machine) or table that a row came from
LINE = "espalier_line"  # int64: where in the origin, from 1: a line of a text file, else a row
ERROR = "espalier_error"  # str or null: why the row cannot be read; such a row goes to quarantine
RAW = "espalier_raw"  # str or null: the text of a row that cannot be read

# Ingestion adds these two to every row that it keeps.
ID = "espalier_id"  # str: 32 hex digits over the row's own columns; equal rows have equal ids
ROW = "espalier_row"  # int64: the row's place in the corpus, from 0

# What `encode` makes for every task, beside the tokenizer's columns. A further column whose name begins with
# RESERVED_PREFIX is for the task's own `decode`, and never trained on; any other is an input of the model.
ENCODED_ROW = "row"  # int64: the row of the table that was encoded (several encoded rows may share one)
LABELS = "labels"
SIDE = "side"  # list<float32>, as long in every row: what a model reads beside the tokens
STARTS, ENDS = "start_positions", "end_positions"  # int64: in place of LABELS for a question-answering head

# What an engine answers for a classification or regression head.
LOGITS = "logits"  # list<float32>, one per output

# What `encode` may make beside that for a causal-lm head; never trained on.
SCORED_BYTES = "scored_bytes"  # int64: UTF-8 bytes of the text that the labels stand for

# What an engine answers for a causal-lm head, over the labels of each row, and what `decode` passes on to metrics.
NLL = "nll"  # float64: negative log-likelihood, summed, natural logarithm
SCORED_TOKENS = "scored_tokens"  # int64: how many labels that was

# What `encode` makes for a masked-lm head beside tokens and labels.
ASKED = f"{RESERVED_PREFIX}asked"  # list<int32>: the places in the row whose tokens are asked for
WORDS = f"{RESERVED_PREFIX}words"  # list<int32>: which word of the text each token is a piece of; -1 for special ones

# What an engine answers for a masked-lm head, per place of ASKED; with LABELS also NLL and SCORED_TOKENS over them.
TOP_TOKENS = "top_tokens"  # list<list<int32>>: the ten likeliest tokens, or all where there are fewer, the first first
TOP_SCORES = "top_scores"  # list<list<float32>>: their probabilities

# What `decode` adds to NLL and SCORED_TOKENS for a masked-lm head.
RIGHT_TOKENS = "right_tokens"  # int64: how many of the scored tokens were the likeliest

# What an opened model adds for a masked-lm head where nothing is labelled.
TOP_TEXTS = "top_texts"  # list<list<str>>: TOP_TOKENS as the tokenizer writes them

# What an opened model adds for a task that writes text.
RATING = "rating"  # float64: how good the answer of the row is to the model; higher is better
OTHER_RATING = "other_rating"  # float64: the same of the answer that was liked less, where the row holds one
WRITTEN = "written"  # str or null: what was written
QUESTION = "espalier_question"  # str: what was asked, for a reader

# What `decode` makes and metrics read.
TARGET = "target"
PREDICTION = "prediction"
SCORE = "score"
SCORES = "scores"
