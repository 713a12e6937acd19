"""Make, read and pack the audio that the codec is trained on."""
