"""What a training stands on stays the same for those begun before a part was known."""

from safelight.app.training_basis import latent_basis
from tiny_model import tiny_folder


def test_the_shape_of_a_unet_with_context_says_nothing_of_self_attention():
    shape = latent_basis(tiny_folder(), text_trained=True)["unet"]
    assert isinstance(shape, dict)
    assert "cross_attention_dim" in shape
    assert "self_attention" not in shape
