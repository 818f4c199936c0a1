"""Dependence between samples: clusters, duplicates, effective sample size, and folds that respect them."""
