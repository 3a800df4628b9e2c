"""The conditions of a latent training: the model that is told them, and what it is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from safelight.app.recipe import LatentRecipe
from safelight.app.recipe_conditions import ConditionConfig
from safelight.app.running import choose_device, seeded
from safelight.app.training_previews import Asked
from safelight.checkpoints.components import Reading
from safelight.checkpoints.conditions import Beside, conditioners_of
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.image_encoder import ImageEncoder, read_image_encoder
from safelight.conditioners.conditions import (
    CONCATENATED,
    AnyCondition,
    Class,
    Image,
    Inpainting,
    Layout,
    LowResolution,
    in_order,
)
from safelight.data.companions import Companions
from safelight.data.config import DataConfig
from safelight.data.folders import PictureFolder
from safelight.data.latents import LatentCache
from safelight.data.sources import (
    Classes,
    Cut,
    Each,
    Layouts,
    Masked,
    One,
    Pictures,
    Source,
    Vectors,
    class_of,
)
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import latent_channels
from safelight.models.clip import ClipText
from safelight.models.image_adapter import ImageAdapter, ImageAdapterConfig
from safelight.models.layout import LayoutEncoder, LayoutEncoderConfig
from safelight.models.tokenizer import ClipTokenizer
from safelight.models.widening import widened
from safelight.pictures import Levels
from safelight.pipelines.annotate import annotator, on_levels
from safelight.rng import generator_for
from safelight.train.beside import Dropped
from safelight.train.fresh import Fresh, fresh_in
from safelight.types import Conditioning

_INPAINTING = "StableDiffusionInpaintPipeline"


@dataclass(frozen=True)
class Told:
    """What a training puts in beside the caption, and where each picture's comes from, by kind."""

    conditions: Mapping[str, Dropped]
    sources: Mapping[str, Source]


def with_conditions(model: Folder, recipe: LatentRecipe, pictures: PictureFolder) -> Folder:
    """The model made ready to be told a recipe's conditions; what is new in its U-Net is zero.

    Raises `SafelightError` for conditions that the model, or the pictures, cannot have.
    """
    wanted = in_order([_condition(config, pictures) for config in recipe.conditions])
    encoder = _encoder(recipe, wanted)
    if model.beside.conditions:
        if model.beside.conditions != wanted:
            kinds = ", ".join(condition.kind for condition in model.beside.conditions)
            raise SafelightError(
                f"The base is told {kinds}; a training that goes on from it has the same "
                "[[conditions]], with the same fields."
            )
        return replace(model, beside=replace(model.beside, encoder=encoder))
    if not wanted:
        return model
    layout = adapter = None
    with seeded(recipe.loop.seed):
        for condition in wanted:
            if isinstance(condition, Layout):
                layout = LayoutEncoder(_layout_config(model))
            elif isinstance(condition, Image) and encoder is not None:
                adapter = _adapter(model, condition, encoder)
    beside = Beside(wanted, layout, adapter, encoder)
    channels = beside.channels(latent_channels(model.autoencoder), model.autoencoder.factor)
    try:
        unet = widened(model.unet, channels, beside.classes or 0)
    except ValueError as error:
        raise SafelightError(f"[[conditions]]: {error}") from error
    alone = wanted == (Inpainting(),)
    pipeline_class = _INPAINTING if alone else model.pipeline_class  # which diffusers opens
    return replace(model, unet=unet, beside=beside, pipeline_class=pipeline_class)


def new_weights(base: Folder, model: Folder) -> list[Fresh]:
    """What of a model's weights its base had not."""
    pairs = (
        (model.unet, base.unet),
        (model.beside.layout, base.beside.layout),
        (model.beside.adapter, base.beside.adapter),
    )
    return [fresh for new, former in pairs if new is not None for fresh in fresh_in(new, former)]


def told_beside(model: Folder, recipe: LatentRecipe, pictures: PictureFolder) -> Told:
    """What a recipe's conditions are for these pictures, in the model's order.

    Raises `SafelightError` for a picture that lacks what a condition needs.
    """
    configs = {config.kind: config for config in recipe.conditions}
    conditioners = conditioners_of(model.beside, model.autoencoder, model.text_towers)
    return Told(
        {kind: Dropped(put, configs[kind].dropout) for kind, put in conditioners.items()},
        {
            condition.kind: _source(condition, configs[condition.kind], model, recipe, pictures)
            for condition in model.beside.conditions
        },
    )


def asked_in_previews(
    recipe: LatentRecipe, told: Told, cache: LatentCache, device: torch.device
) -> Asked:
    """What previews show: the recipe's prompts, else captions of the data, evenly chosen; with
    conditions the captions of pictures, under what these are conditioned on.
    """
    group = max(cache.groups, key=lambda group: len(group.items))
    items = list(group.items) if told.sources else range(len(cache.pictures.items))
    chosen = items[:: max(1, len(items) // recipe.preview.columns)][: recipe.preview.columns]
    captions = [cache.pictures.items[item].captions[0] for item in chosen]
    if not told.sources:
        size = (recipe.data.size, recipe.data.size)
        return Asked(list(recipe.preview.prompts or captions), size, lambda cond, _: cond)
    cuts = [Cut(item, group.bucket, False, 0) for item in chosen]
    inputs = {
        kind: source(cuts, [generator_for(recipe.preview.seed, cut.item) for cut in cuts])
        for kind, source in told.sources.items()
    }

    def put_in(cond: Conditioning, null: bool) -> Conditioning:
        for kind, condition in told.conditions.items():
            given = tuple(tensor.to(device) for tensor in inputs[kind])
            kept = torch.full((len(cuts),), kind in CONCATENATED or not null, device=device)
            cond = condition.put(cond, given, kept)
        return cond

    return Asked(captions, group.bucket, put_in)


def _condition(config: ConditionConfig, pictures: PictureFolder) -> AnyCondition:
    if config.kind != "class" or config.names is not None:
        return config.condition()
    found = {class_of(item, config.of_column) for item in pictures.items}
    return config.condition(sorted(found))


def _source(
    condition: AnyCondition,
    config: ConditionConfig,
    model: Folder,
    recipe: LatentRecipe,
    pictures: PictureFolder,
) -> Source:
    itself = Companions(pictures, recipe.data, annotate=_itself)
    if isinstance(condition, Image):
        assert model.beside.encoder is not None  # which `with_conditions` sees to
        return Vectors(itself, model.beside.encoder.embed)
    return Each(_one(condition, config, model, recipe.data, pictures, itself))


def _one(
    condition: AnyCondition,
    config: ConditionConfig,
    model: Folder,
    data: DataConfig,
    pictures: PictureFolder,
    itself: Companions,
) -> One:
    column = config.of_column
    match condition:
        case Class():
            return Classes(pictures, column, condition.names)
        case Layout():
            tokenizer = model.tokenizers[-1]
            assert isinstance(tokenizer, ClipTokenizer)
            return Layouts(pictures, column, condition.most, tokenizer.encode)
        case Inpainting():
            return Masked(itself)
        case LowResolution():
            return Pictures(itself, condition.factor)
        case _:
            if config.annotator is None:
                return Pictures(Companions(pictures, data, column=column))
            make = on_levels(annotator(config.annotator, weights=config.weights))
            return Pictures(Companions(pictures, data, annotate=make))


def _layout_config(model: Folder) -> LayoutEncoderConfig:
    tower = model.text_towers[-1]
    width = model.unet.config.cross_attention_dim
    if width is None or not isinstance(tower, ClipText):
        raise SafelightError(
            "A layout is told by cross-attention, in words that a CLIP text tower reads; this "
            "model has not both."
        )
    label = tower.config.projection_dim or tower.config.hidden_size
    return LayoutEncoderConfig(label_dim=label, token_dim=width)


def _encoder(recipe: LatentRecipe, conditions: Sequence[AnyCondition]) -> ImageEncoder | None:
    """What other pictures are looked at through, if the model is told such."""
    for condition in conditions:
        if isinstance(condition, Image):
            reading = Reading(device=choose_device(recipe.device))
            return read_image_encoder(condition.encoder, reading=reading)
    return None


def _adapter(model: Folder, condition: Image, encoder: ImageEncoder) -> ImageAdapter:
    """A fresh adapter for a model's layers."""
    context = model.unet.config.cross_attention_dim or 0
    shape = ImageAdapterConfig(encoder.width, context, (), tokens=condition.tokens)
    try:
        return ImageAdapter.for_unet(model.unet, shape)
    except ValueError as error:
        raise SafelightError(f"[[conditions]]: {error}") from error


def _itself(levels: Levels) -> Levels:
    return levels
