import torch

from safelight.eval.augment import disturb, move, random_shifts, recolour


def test_strength_zero_changes_nothing():
    pixels = torch.rand(3, 3, 16, 16) * 1.98 - 0.99
    same = disturb(pixels, torch.Generator().manual_seed(0), strength=0.0)
    torch.testing.assert_close(same, pixels, atol=1e-5, rtol=0)


def test_disturbed_pictures_stay_in_range_and_differ_from_one_another():
    pixels = torch.rand(1, 3, 16, 16).expand(6, 3, 16, 16) * 2 - 1
    worse = disturb(pixels, torch.Generator().manual_seed(1))
    assert worse.abs().max() <= 1
    assert 0.02 < (worse - pixels).abs().mean() < 0.3
    assert (worse[0] - worse[1]).abs().mean() > 0.01
    assert worse.equal(disturb(pixels, torch.Generator().manual_seed(1)))


def test_shifts_move_pictures_and_labels_alike():
    ids = torch.zeros(8, 1, 32, 32)
    ids[:, :, 8:20, 12:24] = 1
    maps = random_shifts(8, torch.Generator().manual_seed(2), shift=0.1, zoom=0.1, flip=True)
    moved = move(ids, maps)
    assert ((moved > 0.5).float() - move(ids, maps, nearest=True)).abs().mean() < 0.02
    centre = (moved * torch.arange(32)).sum(dim=(1, 2, 3)) / moved.sum(dim=(1, 2, 3))
    assert centre.std() > 0.5
    assert (centre - 15.5).abs().max() < 6


def test_a_mirror_is_a_mirror():
    pixels = torch.rand(4, 3, 8, 8)
    maps = torch.tensor([[[-1.0, 0, 0], [0, 1.0, 0]]]).expand(4, 2, 3)
    torch.testing.assert_close(move(pixels, maps), pixels.flip(3), atol=1e-5, rtol=0)


def test_recolouring_mixes_channels_of_the_chosen_only():
    pixels = torch.rand(3, 3, 4, 4) * 2 - 1
    chosen = torch.tensor([True, False, True])
    changed = recolour(pixels, chosen, torch.Generator().manual_seed(3))
    assert changed[1].equal(pixels[1])
    assert not changed[0].allclose(pixels[0], atol=0.05)
    grey = torch.full((1, 3, 4, 4), 0.3)
    same = recolour(grey, torch.tensor([True]), torch.Generator())
    torch.testing.assert_close(same, grey)
