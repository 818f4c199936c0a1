"""One tiny run, shared by the tests of export, card and monitor."""

import pytest


@pytest.fixture(scope="session")
def run_folder(runs):
    return runs("single") / "ce-s3"
