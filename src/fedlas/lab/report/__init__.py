"""Tables, pages and figures of finished runs, for terminal, HTML, Markdown and CSV.

In: a ``Summary`` of run folders, or what a study returned. Out: files and tables. Templates are in ``templates/``.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.lab.report.bench_tables import detailed_bench_table, short_bench_table
    from fedlas.lab.report.cells import result_table
    from fedlas.lab.report.compare import differences_figure
    from fedlas.lab.report.diagnosis import diagnose_page
    from fedlas.lab.report.read_benches import read_bench_result
    from fedlas.lab.report.report import html_report, markdown_report, read_report, write_report
    from fedlas.lab.report.verdict import answers, missing_notes

__all__ = [
    "answers",
    "detailed_bench_table",
    "diagnose_page",
    "differences_figure",
    "html_report",
    "markdown_report",
    "missing_notes",
    "read_bench_result",
    "read_report",
    "result_table",
    "short_bench_table",
    "write_report",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(
        __name__,
        {
            "bench_tables": "detailed_bench_table short_bench_table",
            "cells": "result_table",
            "compare": "differences_figure",
            "diagnosis": "diagnose_page",
            "report": "html_report markdown_report read_report write_report",
            "read_benches": "read_bench_result",
            "verdict": "answers missing_notes",
        },
    )
