"""What a training stands on stays the same for those begun before a part was known."""

from dataclasses import replace

from safelight.app.training_basis import latent_basis, video_basis
from safelight.checkpoints.folder import Folder
from safelight.models.autoencoder import Autoencoder
from tiny_model import tiny_folder
from tiny_video import video_folder


def test_a_video_training_stands_on_how_latents_are_scaled_and_noised():
    def basis(model: Folder, scale: float = 0.5) -> dict[str, object]:
        return dict(video_basis(model, trained="temporal", shift=0.0, scale=scale))

    model = video_folder()
    before = basis(model)

    def changed(model: Folder, scale: float = 0.5) -> set[str]:
        return {key for key, value in basis(model, scale).items() if value != before[key]}

    assert changed(model) == set()
    assert changed(model, 0.25) == {"latents"}
    scheduler = model.scheduler
    other = replace(scheduler, beta_end=scheduler.beta_end / 2)
    assert changed(replace(model, scheduler=other)) == {"noise_levels"}
    other = replace(scheduler, sigma_data=0.7)
    assert "sigma_data" in changed(replace(model, scheduler=other))
    autoencoder = model.autoencoder
    assert isinstance(autoencoder, Autoencoder)
    autoencoder.config = replace(autoencoder.config, norm_num_groups=1)
    assert changed(model) == {"autoencoder_shape"}


def test_the_shape_of_a_unet_with_context_says_nothing_of_self_attention():
    shape = latent_basis(tiny_folder(), text_trained=True)["unet"]
    assert isinstance(shape, dict)
    assert "cross_attention_dim" in shape
    assert "self_attention" not in shape
