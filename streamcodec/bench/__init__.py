"""How fast the engines are on this machine, after a check that they are right."""
