import pytest

from fedlas.errors import InputError
from fedlas.plots import LIGHT, critical_difference_diagram, new_axes
from fedlas.stats import compare_ranks

RANKED = compare_ranks(
    {"ours": [1, 1, 1, 2, 1], "theirs": [2, 2, 2, 1, 2], "$a_b$": [3, 3, 3, 3, 3]},
    higher_is_better=False,
)


def test_names_ranks_and_groups_are_drawn():
    ax = critical_difference_diagram(RANKED)
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["1", "2", "3", "CD 1.48", "ours 1.20", "theirs 1.80", "$a_b$ 3.00"]
    wide = [line for line in ax.lines if line.get_linewidth() == 3]
    assert [len(wide), len(RANKED.groups())] == [2, 2]
    assert min(wide[0].get_xdata()) < 1.2 < 1.8 < max(wide[0].get_xdata())


def test_wilcoxon_has_no_critical_difference():
    ax = critical_difference_diagram(
        RANKED, test="wilcoxon", theme="dark", ax=new_axes(LIGHT, size=(4, 2))
    )
    assert "CD 1.48" not in [text.get_text() for text in ax.texts]
    # Five data sets: no pair can be told to differ.
    assert len([line for line in ax.lines if line.get_linewidth() == 3]) == 1


@pytest.mark.parametrize(
    ("comparison", "options"), [(3, {}), (RANKED, {"test": "t"}), (RANKED, {"ax": 3})]
)
def test_other_arguments_are_refused(comparison, options):
    with pytest.raises(InputError):
        critical_difference_diagram(comparison, **options)
