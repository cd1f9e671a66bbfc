from __future__ import annotations

import pytest
import torch

from crosspatch.models.losses import ArcFaceHead, class_balanced_focal_loss, inverse_frequency
from crosspatch.models.sequence import FamilyEncoder, FamilyNorm, SequenceSettings
from crosspatch.models.sequence_inputs import SequenceInputs

WIDTHS = [4, 3, 2]


def encoder(**changes) -> FamilyEncoder:
    torch.manual_seed(0)
    return FamilyEncoder(WIDTHS, SequenceSettings(hidden=8, attention_hidden=8, **changes)).eval()


def cells(n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(n, 3, 4, generator=generator)
    present = torch.rand(n, 3, generator=generator) > 0.4
    present[:, 0] |= ~present.any(1)
    present[0] = True
    present[1] = torch.tensor([False, True, False])
    return values, present


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_changing_masked_values_changes_nothing(attention: bool, norm: bool):
    model = encoder(attention=attention, norm=norm)
    values, present = cells()
    other = torch.where(present[..., None], values, torch.full_like(values, 1e6))
    for one, two in zip(model(values, present), model(other, present), strict=True):
        assert torch.equal(one, two)


def test_absent_families_get_exactly_zero_attention():
    values, present = cells()
    weights = encoder()(values, present)[1]
    assert (weights[~present] == 0).all()
    assert (weights[present] > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))


@pytest.mark.parametrize("attention", [True, False])
def test_an_absent_family_leaves_no_trace_in_the_sequence(attention: bool):
    """A cell without the middle family is encoded as if there were only the other two."""
    model = encoder(attention=attention)
    values = cells()[0][:1]
    present = torch.tensor([[True, False, True]])
    encoding, weights = model(values, present)
    outputs = model.lstm(model.norm(values)[:, [0, 2]])[0]
    if attention:
        expected = torch.softmax(model.score(outputs).squeeze(-1), dim=1)
    else:
        expected = torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(weights[:, [0, 2]], expected)
    torch.testing.assert_close(encoding, (expected[..., None] * outputs).sum(1))


def test_a_cell_does_not_depend_on_the_others_of_its_batch():
    model = encoder()
    values, present = cells()
    together = model(values, present)[0]
    for k in range(len(values)):
        torch.testing.assert_close(model(values[[k]], present[[k]])[0][0], together[k])


def test_a_cell_without_any_family_is_encoded_as_zero():
    values, present = cells()
    present[2] = False
    encoding, weights = encoder()(values, present)
    assert (encoding[2] == 0).all()
    assert (weights[2] == 0).all()


def test_the_norm_leaves_padding_out():
    values = torch.tensor([[[1.0, 2.0, 3.0, 6.0], [1.0, 2.0, 3.0, 9.0], [1.0, 3.0, 9.0, 9.0]]])
    normed = FamilyNorm(WIDTHS)(values)[0]
    torch.testing.assert_close(
        normed[0], torch.nn.functional.layer_norm(values[0, 0], (4,)), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(normed[2], torch.tensor([-1.0, 1.0, 0.0, 0.0]), atol=1e-4, rtol=0)
    assert normed[1, 3] == 0


def test_a_family_of_one_feature_is_not_erased_by_the_norm():
    normed = FamilyNorm([1, 2])(torch.tensor([[[2.0, 0.0], [1.0, 3.0]], [[-7.0, 0.0], [1.0, 3.0]]]))
    torch.testing.assert_close(normed[:, 0, 0], torch.tensor([2.0, -7.0]), atol=1e-4, rtol=1e-4)


def test_arcface_adds_the_margin_to_the_true_angle():
    torch.manual_seed(0)
    head = ArcFaceHead(5, 3, scale=10.0, margin=0.35)
    encoding = torch.randn(6, 5)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    angle = torch.acos(head(encoding) / 10.0)
    with_margin = torch.acos(head(encoding, y) / 10.0)
    expected = angle + 0.35 * torch.nn.functional.one_hot(y, 3)
    small = angle.gather(1, y[:, None]).squeeze(1) < torch.pi - 0.35
    assert small.any()
    torch.testing.assert_close(with_margin[small], expected[small], atol=1e-3, rtol=1e-3)


def test_arcface_falls_steadily_up_to_the_opposite_direction():
    head = ArcFaceHead(2, 2, margin=0.35)
    head.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    angles = torch.linspace(0, torch.pi, 200)
    encoding = torch.stack([angles.cos(), angles.sin()], dim=1)
    logits = head(encoding, torch.zeros(200, dtype=torch.long))[:, 0]
    assert (logits.diff() < 1e-4).all()


def test_focal_loss_without_focus_and_balance_is_cross_entropy():
    torch.manual_seed(0)
    logits, y = torch.randn(20, 4), torch.randint(4, (20,))
    counts = torch.tensor([5, 5, 5, 5])
    plain = class_balanced_focal_loss(logits, y, counts, gamma=0.0)
    torch.testing.assert_close(plain, torch.nn.functional.cross_entropy(logits, y))
    assert class_balanced_focal_loss(logits, y, counts) < plain


def test_rare_classes_weigh_more():
    counts = torch.tensor([10, 100])
    torch.testing.assert_close(inverse_frequency(counts), torch.tensor([20 / 11, 2 / 11]))
    logits = torch.zeros(1, 2)
    rare = class_balanced_focal_loss(logits, torch.tensor([0]), counts)
    common = class_balanced_focal_loss(logits, torch.tensor([1]), counts)
    # Effective numbers of Cui et al.: (1 - 0.999^n) / (1 - 0.999).
    torch.testing.assert_close(rare / common, torch.tensor((1 - 0.999**100) / (1 - 0.999**10)))


def test_inputs_use_training_cells_only_and_leave_absent_families_zero():
    import numpy as np

    from tests.made import SMALL

    rng = np.random.default_rng(0)
    X = rng.normal(5.0, 2.0, size=(50, len(SMALL.features)))
    X[0, 1] = np.nan
    X[1, SMALL.columns["spike"]] = np.nan
    X[2, 3] = 1e6
    inputs = SequenceInputs(SMALL).fit(X)
    np.testing.assert_allclose(inputs.mean_, np.nanmean(X, axis=0))
    values, present = inputs.transform(X)
    assert values[0, 1] == np.float32(inputs.median_[1])
    assert (values[1, SMALL.columns["spike"]] == 0).all()
    assert not present[1, SMALL.families.index("spike")]
    assert values[2, 3] == 5.0
    one_more, _ = inputs.transform(np.vstack([X, X[:1] * 1000]))
    np.testing.assert_array_equal(one_more[:50], values)
