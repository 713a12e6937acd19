"""A listening test after ITU-R BS.1534-3 (MUSHRA): prepared, served on this machine, and analysed."""
