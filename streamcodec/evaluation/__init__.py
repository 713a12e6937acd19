"""Comparing codecs on the same clips: clips -> codecs -> alignment -> metrics -> tables, plots and a report."""
