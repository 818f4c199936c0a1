import random

import numpy as np
import torch

from fedlas._core.streams import derive_seed, restore_rng_state, rng_state, seed_everything


def draw():
    return (
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
        torch.rand(3).tolist(),
    )


def test_derive_is_stable_and_separates_purposes_and_seeds():
    assert derive_seed(0, "model") == 874792090  # published seeds must keep their meaning
    seeds = {
        derive_seed(seed, purpose)
        for seed in range(50)
        for purpose in ("model", "criterion", "order", "split")
    }
    assert len(seeds) == 200
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_seeding_repeats_every_generator():
    seed_everything(7)
    first = draw()
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert draw() != first


def test_state_survives_a_checkpoint(tmp_path):
    seed_everything(3)
    # half of a Box-Muller pair is kept: it must be restored too
    random.gauss(0, 1), np.random.randn()
    torch.save(rng_state(), tmp_path / "rng.pt")
    expected = draw()
    draw()
    restore_rng_state(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert draw() == expected
