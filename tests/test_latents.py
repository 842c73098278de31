import torch

from my3dgen.latents import AlphaSpace, WSpace, latent_statistics, principal_axes


def test_statistics_describe_the_prior_s_own_latents(tiny_prior):
    statistics = latent_statistics(tiny_prior.generator, count=3000)
    z = torch.randn(3000, tiny_prior.config.z_dim, generator=torch.Generator().manual_seed(9))
    w = tiny_prior.generator.mapping(z, None)[:, 0]
    u = torch.randn(3000, tiny_prior.config.w_dim, generator=torch.Generator().manual_seed(8))
    drawn = statistics.decode(u)
    torch.testing.assert_close(drawn.mean(0), w.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(w.T), atol=0.1, rtol=0)


def test_w_repeats_its_vector_and_w_plus_does_not(tiny_prior):
    statistics = latent_statistics(tiny_prior.generator, count=200)
    start = torch.randn(2, 1, tiny_prior.config.w_dim, generator=torch.Generator().manual_seed(0))
    one, many = (WSpace(statistics, 8, start, plus=plus) for plus in (False, True))
    torch.testing.assert_close(one.ws(), many.ws())
    assert (one.variables()[0][0].shape[1], many.variables()[0][0].shape[1]) == (1, 8)
    assert (one.strain() > 0).all()
    assert (WSpace(statistics, 8, 0 * start).strain() == 0).all()


def test_alpha_space_moves_by_the_anchors_own_spread():
    rng = torch.Generator().manual_seed(0)
    anchors = torch.randn(5, 8, 4, generator=rng) * torch.tensor([1.0, 10.0, 1.0, 0.1])
    space = AlphaSpace(anchors, torch.full((3, 5), 0.2))
    torch.testing.assert_close(space.ws(), anchors.mean(0).expand(3, 8, 4))
    assert (space.strain() < 1e-9).all()
    axes = principal_axes(anchors)
    assert axes.shape == (4, 5)  # five points span four dimensions
    torch.testing.assert_close(axes.sum(1), torch.zeros(4), atol=1e-6, rtol=0)
    moved = torch.einsum("ak,kld->ald", axes, anchors).flatten(1)
    along = (anchors - anchors.mean(0)).flatten(1) @ (moved / moved.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(moved.norm(dim=1), along.std(0))
    space.moved.data[:, :, 0] = 2.0
    torch.testing.assert_close(space.ws()[1] - anchors.mean(0), 2 * moved[0].view(8, 4))
    torch.testing.assert_close(space.strain(), torch.full((3,), 0.02 * 4 / 4))
    again = AlphaSpace(anchors, space.alphas().detach())
    torch.testing.assert_close(again.strain(), space.strain())


def test_layers_may_have_weights_of_their_own():
    rng = torch.Generator().manual_seed(0)
    anchors = torch.randn(5, 8, 4, generator=rng)
    space = AlphaSpace(anchors, torch.full((3, 5), 0.2), plus=True)
    (shared, rate), (own, slower) = space.variables()
    assert shared.shape == (3, 1, 4) and own.shape == (3, 8, 4) and slower < rate
    shared.data += torch.randn(shared.shape, generator=rng)
    assert space.alphas().std(1).max() < 1e-6
    own.data += torch.randn(own.shape, generator=rng)
    alphas = space.alphas()
    torch.testing.assert_close(alphas.sum(-1), torch.ones(3, 8))
    assert alphas.std(1).min() > 0.01
    torch.testing.assert_close(space.ws(), torch.einsum("blk,kld->bld", alphas, anchors))


def test_a_single_anchor_leaves_nowhere_to_go():
    anchor = torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(0))
    space = AlphaSpace(anchor, torch.ones(2, 1))
    assert torch.equal(space.ws(), anchor.expand(2, 8, 4)) and torch.equal(space.strain(), torch.zeros(2))


def test_layers_pay_for_departing_from_each_other():
    rng = torch.Generator().manual_seed(0)
    anchors = torch.randn(5, 8, 4, generator=rng)
    space = AlphaSpace(anchors, torch.full((1, 5), 0.2), plus=True, weight=0.0, offset_weight=0.5)
    space.strain().sum().backward()
    assert space.strain().item() < 1e-5 and space.offsets.grad.isfinite().all()
    space.offsets.data[0, 3] = torch.tensor([3.0, 4.0, 0.0, 0.0])
    torch.testing.assert_close(space.strain(), torch.tensor([0.5 * 5 / 8]), atol=1e-4, rtol=0)
    # a space that starts where another one was left pays the same, but for what all layers moved alike
    again = AlphaSpace(anchors, space.alphas().detach(), plus=True, weight=0.0, offset_weight=0.5)
    mean = space.offsets.mean(1, keepdim=True)
    apart = (space.offsets - mean).norm(dim=2).mean()
    torch.testing.assert_close(again.strain(), 0.5 * apart[None], atol=1e-3, rtol=0)
