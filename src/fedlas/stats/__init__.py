"""Is a difference between methods more than noise? Paired tests over seeds, with correction for asking often."""

from fedlas.stats.compare import Comparison, PairedTest, compare_to_best, holm, paired_t_test

__all__ = ["Comparison", "PairedTest", "compare_to_best", "holm", "paired_t_test"]
