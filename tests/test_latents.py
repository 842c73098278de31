import torch

from my3dgen.alpha import layer_alphas
from my3dgen.latents import AlphaSpace, WSpace, latent_statistics


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


def test_alpha_space_stays_in_the_dilated_hull():
    rng = torch.Generator().manual_seed(0)
    anchors = torch.randn(5, 8, 4, generator=rng)
    space = AlphaSpace(anchors, torch.full((3, 5), 0.2), beta=0.03, plus=True)
    torch.testing.assert_close(space.ws(), anchors.mean(0).expand(3, 8, 4))
    for leaf, _ in space.variables():
        leaf.data += 0.05 * torch.randn(leaf.shape, generator=rng)
    space.raw.data[:, 0] = -1.0
    alphas = space.alphas()
    torch.testing.assert_close(alphas.sum(-1), torch.ones(3, 8))
    sums = layer_alphas(space.raw, space.deltas, 0.03)[0].sum(-1, keepdim=True)
    assert (alphas * sums > -0.0301).all()  # before the rows are divided by their sums
    assert (alphas[..., 0] < -0.02).all()
    assert (space.strain() > 0).all()
