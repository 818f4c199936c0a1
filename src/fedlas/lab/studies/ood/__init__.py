"""Out-of-distribution detection with finished runs: ``fedlas ood``."""
