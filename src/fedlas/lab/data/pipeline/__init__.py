"""Splits and batches."""
