"""Sound files, resampling, devices and ring buffers; no torch."""
