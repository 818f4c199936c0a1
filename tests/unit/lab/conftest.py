"""Files that tests of the laboratory write."""

import pytest


@pytest.fixture
def write(tmp_path):
    """``write(text)``: the path of a YAML file that holds the text."""

    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write
