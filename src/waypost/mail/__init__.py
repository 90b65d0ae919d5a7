"""The vocabulary of mail as values: no I/O, no clock, no randomness."""
