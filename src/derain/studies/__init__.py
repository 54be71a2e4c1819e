"""Recorded runs: which there are, what they came to, the paper's tables and the studies' panels."""
