"""Ways to run the network, one Engine each."""
