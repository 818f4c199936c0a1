"""Out to production: a run's model in another form, calibrated, checked against the run's own predictions."""
