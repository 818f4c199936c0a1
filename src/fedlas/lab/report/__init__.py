"""Tables, pages and figures of finished runs, for terminal, HTML, Markdown and CSV.

In: a ``Summary`` of run folders, or what a study returned. Out: files and tables. Templates are in ``templates/``.
"""
