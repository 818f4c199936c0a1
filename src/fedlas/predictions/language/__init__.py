"""Confidences of language models: verbalized, from log-probabilities, from votes, and in lm-evaluation-harness logs."""
