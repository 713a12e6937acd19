"""Columns of the table of operations: row by row, int64, offsets in values.

CONV        a dense convolution (or transposed, as one), a Snake before it if there is one
RESIDUAL    a depthwise residual unit, in place
TANH        bounds the waveform, in place
"""

from __future__ import annotations

CONV, RESIDUAL, TANH = range(3)
"""Operations, column OP."""

GROUP_STREAMS = 8
"""Streams that run together, operation by operation: as many as a second-level cache holds."""

COLUMNS = (
    "OP",
    "SOURCE",  # scratch: input
    "TARGET",  # scratch: output
    "SEEN",  # scratch: history and input side by side
    "BLOCK",  # scratch: RESIDUAL, rows between Snake and 1x1 convolution
    "ROWS_IN",
    "CHANNELS_IN",
    "ROWS_OUT",
    "COLUMNS_OUT",  # of the matrix product
    "HISTORY",  # values
    "STATE",  # state: history
    "SNAKE",  # weights: constants of the Snake before, or -1
    "HALF",  # CONV: whether the packed matrix is float16
    "WEIGHT",  # weights, or half weights: packed matrix
    "BIAS",  # weights
    "ZEROS",  # weights: zeros as long as the bias
    "FIRST",  # CONV: values of SEEN before the first window
    "STEP",  # CONV: values from window to window
    "DEPTH",  # CONV: values of a window
    "TAPS",  # CONV: products to sum
    "TAP_STEP",  # CONV: values between the windows of two products
    "TAP_WEIGHTS",  # CONV: packed values of one product
    "ACCUMULATE",  # CONV: add to the target
    "KERNEL",  # RESIDUAL
    "DILATION",  # RESIDUAL
    "BLOCK_ROWS",  # RESIDUAL
    "DEPTHWISE",  # RESIDUAL, weights: [kernel, channels]
    "DEPTHWISE_BIAS",  # RESIDUAL, weights
    "SNAKE2",  # RESIDUAL, weights: constants of the second Snake
)
"""Names of the columns, in order."""

COLUMN = {name: i for i, name in enumerate(COLUMNS)}
"""Number of each column."""

SETTINGS = (
    "STREAM",  # scratch: values from one stream's areas to the next one's
    "ACTIVATION",  # scratch: where a frame, or its latent, begins and ends
    "QUERY",  # scratch: a codebook's query
    "BEAM",  # scratch: what a beam search works in
    "LATENT",  # values
    "CODES",  # of a codebook
    "DIMENSION",  # of a code
    "BOOKS",  # weights: codebooks
    "GUIDES",  # weights: what a beam search needs beside them
    "OPERATIONS",  # rows of the table
    "TABLE_ADDRESS",
    "WEIGHTS_ADDRESS",
    "WEIGHTS_VALUES",
    "HALF_WEIGHTS_ADDRESS",
    "HALF_WEIGHTS_VALUES",
)
"""Names of the numbers of a program that are not of one operation, in order."""

SETTING = {name: i for i, name in enumerate(SETTINGS)}
"""Number of each setting."""
