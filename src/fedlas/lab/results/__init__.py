"""Methods x seeds x stages: what finished runs measured, compared and tested once.

In: a ``Summary`` of run folders, or what a study returned. Out: ``Result``, which ``lab.report`` shows and nothing else
computes again.
"""
