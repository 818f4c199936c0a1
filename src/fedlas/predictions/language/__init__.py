"""Confidences of language models: stated in text, from log-probabilities, in logs of lm-evaluation-harness."""
