"""A network as a table of operations that one call runs.

Each operation reads and writes one float32 scratch vector, one state vector of the stream, and one vector of packed
weights, at offsets that its row of the table gives.  `layout.py` names the columns.
"""
