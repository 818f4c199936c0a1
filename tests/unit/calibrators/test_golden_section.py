import pytest

from fedlas.calibrators._fit.minimize import golden_section


@pytest.mark.parametrize("at", [-1.0, 0.3, 2.0])
def test_the_minimum_is_found_and_no_point_is_tried_twice(at):
    tried = []

    def function(point):
        tried.append(point)
        return (point - at) ** 2

    assert golden_section(function, -1.0, 2.0, 1e-6) == pytest.approx(at, abs=1e-6)
    assert len(set(tried)) == len(tried) < 40


def test_a_narrow_bracket_needs_no_evaluation():
    assert golden_section(None, 1.0, 1.0, 0.1) == 1.0
