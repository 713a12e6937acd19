"""Corpus, sampler, losses, discriminators and the loop that trains a model."""
