import torch

from fedlas import Predictions
from fedlas.calibrators import MatrixScaling, TemperatureScaling, VectorScaling

LEAK = torch.tensor([[1.0, 0.6, 0, 0], [0, 1, 0.6, 0], [0, 0, 1, 0.6], [0, 0, 0, 1]]).double()


def test_without_penalties_it_is_multinomial_logistic_regression(generated):
    from sklearn.linear_model import LogisticRegression

    val, test = (generated(400, distort=lambda z: 2 * z @ LEAK, seed=seed) for seed in (0, 1))
    theirs = LogisticRegression(C=1e8, tol=1e-10, max_iter=10_000).fit(val.logits, val.target)
    ours = MatrixScaling(0.0, 0.0).fit(val).transform(test)
    torch.testing.assert_close(
        ours.tensors().probs, torch.from_numpy(theirs.predict_proba(test.logits)), rtol=0, atol=1e-3
    )


def test_the_mixing_is_undone(generated):
    val = generated(20_000, distort=lambda z: 2 * z @ LEAK)
    matrix = MatrixScaling().fit(val)
    wanted = torch.linalg.inv(2 * LEAK).T
    # Only differences between rows matter to the softmax.
    torch.testing.assert_close(
        matrix.weight - matrix.weight[0], wanted - wanted[0], rtol=0, atol=0.08
    )
    torch.testing.assert_close(
        matrix.transform(val).tensors().probs, val.tensors().label_probs, rtol=0, atol=0.07
    )


def test_strong_penalties_leave_vector_scaling(generated):
    val = generated(1000, distort=lambda z: z * torch.tensor([1.0, 2, 3, 4]))
    matrix, vector = MatrixScaling(1e9, 0.0).fit(val), VectorScaling(num_folds=None).fit(val)
    torch.testing.assert_close(matrix.weight, torch.diag(vector.weight), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        matrix.bias - matrix.bias[0], vector.bias - vector.bias[0], rtol=1e-3, atol=1e-4
    )


def test_transform_is_the_map(generated):
    val = generated(100, dtype=torch.float32)
    matrix = MatrixScaling(1.0, 1.0).fit(val)
    wanted = val.tensors().logits.double() @ matrix.weight.T + matrix.bias
    torch.testing.assert_close(matrix.transform(val).tensors().logits, wanted.float())
    assert matrix.weight.shape == (4, 4)


def test_forty_classes():
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4000, 40, generator=random, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=random).squeeze(1)
    leak = torch.eye(40).double() + 0.7 * torch.eye(40).double().roll(1, 0)
    mixed = Predictions(2 * logits @ leak, target)
    matrix, temperature = (
        c.fit(mixed).transform(mixed) for c in (MatrixScaling(100.0, 1.0), TemperatureScaling())
    )
    error, before = (
        float((p.tensors().probs - logits.softmax(1)).abs().mean()) for p in (matrix, temperature)
    )
    assert error < 0.6 * before
