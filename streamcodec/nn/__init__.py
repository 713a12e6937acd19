"""The network as torch modules, built from ."""
