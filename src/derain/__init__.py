"""Continual de-raining by Neural Reorganization."""
