"""Out-of-distribution detection with finished runs: ``fedlas runs ood``."""
