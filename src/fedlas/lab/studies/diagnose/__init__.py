"""``fedlas diagnose``: gate and indicator of finished runs, in numbers, figures and failure cases."""

from fedlas.lab.studies.diagnose.study import Study, study_run

__all__ = ["Study", "study_run"]
