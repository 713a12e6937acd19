"""What `streamcodec bench --device cuda` measures: each kernel, and streams per card."""
