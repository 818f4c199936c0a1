"""P-values as text."""

from __future__ import annotations

from fedlas.stats.noise_floor import rejects


def p_text(p_value: float) -> str:
    """Two significant digits, one below 0.01, and never in powers of ten: ``0.31``, ``0.001``, ``<0.0001``.

    Example:
        >>> p_text(0.3141), p_text(0.001), p_text(1.0), p_text(1e-9)
        ('0.31', '0.001', '1', '<0.0001')
    """
    return "<0.0001" if p_value < 1e-4 else f"{p_value:.1g}" if p_value < 0.01 else f"{p_value:.2g}"


def p_said(p_value: float, least_p: float | None) -> str:
    """``"p = 0.31"``; with ``≤`` where it is the smallest that its replicates could have given.

    Example:
        >>> p_said(0.3141, 0.001), p_said(0.001, 0.001), p_said(0.001, None), p_said(1e-9, None)
        ('p = 0.31', 'p ≤ 0.001', 'p = 0.001', 'p < 0.0001')
    """
    bound = least_p is not None and rejects(p_value, least_p)
    return f"p {'≤' if bound else '='} {p_text(p_value)}".replace("= <", "< ").replace("≤ <", "< ")
