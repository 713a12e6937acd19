"""A network as a table of operations that one call runs.

Each operation reads and writes a float32 scratch vector, the streams' state, and one vector of packed weights (with a
second one for those kept as float16), at offsets that its row of the table gives.  `layout.py` names the columns.

Streams run together, operation by operation, so weights are read once for all of them.  In scratch each stream has
its own activations and its own rows of history and input, `activation_stream` and `seen_stream` values apart.
"""
