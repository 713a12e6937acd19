"""History of a stream between two steps on CUDA: a ring of rows per layer, and one counter of frames per stream.

    state [B, R, C]    rows of every stream's past, R as the layer's `state_shape` says; zeros are silence
    frame int32 [B]    frames that this stream has finished; `advance` counts on, once after all layers
    active [B] bool    streams that take part in this step

A step reads the counters on the device and moves no rows: what frame f leaves stands where no program of frame f + 1
that writes can reach it.  A stream that is not active keeps its state, its counter and its rows of the outputs as
they are.  To start a stream anew, zero its rows of every state; its counter may stand anywhere from 0.  A stream
moves to another place in the batch with its rows and its counter.  After 2^31 frames (331 days of 13.3 ms) the
counter starts at 0 again, and a few frames are made with a wrong past.

The step functions are in `residual_unit.cuda`, `conv.cuda`, `conv_transpose.cuda`, `waveform_conv.cuda`,
`nearest_code.cuda` and `code_lookup.cuda`.  All take contiguous tensors on one device, best from addresses that are
multiples of 16 bytes; they allocate nothing, never wait for the device and launch one kernel, so a CUDA graph can
record them (after one call each outside the recording, which compiles).  Activations, weights and state may each be
float32, bfloat16 or float16; sums are float32, and products take the weights' type: float32 weights are multiplied as
IEEE numbers (`precision="ieee"`), or on tensor cores as "tf32x3" or "tf32".  A stream's values do not depend on its
neighbours, on its place or on B, to the last bit.
"""
