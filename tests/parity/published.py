"""Configurations as their models' authors published them, to the letter, nulls and old keys too."""

import json

_BLOCKS = """
  "down_block_types": [
    "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"
  ],
  "up_block_types": [
    "UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"
  ],
"""
_SD1 = (
    """{
  "_class_name": "UNet2DConditionModel",
  "_diffusers_version": "0.6.0",
  "act_fn": "silu",
  "attention_head_dim": 8,
  "block_out_channels": [320, 640, 1280, 1280],
  "center_input_sample": false,
  "cross_attention_dim": 768,"""
    + _BLOCKS
    + """
  "downsample_padding": 1,
  "flip_sin_to_cos": true,
  "freq_shift": 0,
  "in_channels": 4,
  "layers_per_block": 2,
  "mid_block_scale_factor": 1,
  "norm_eps": 1e-05,
  "norm_num_groups": 32,
  "out_channels": 4,
  "sample_size": 64
}"""
)
_SD2 = (
    """{
  "_class_name": "UNet2DConditionModel",
  "_diffusers_version": "0.10.0.dev0",
  "act_fn": "silu",
  "attention_head_dim": [5, 10, 20, 20],
  "block_out_channels": [320, 640, 1280, 1280],
  "center_input_sample": false,
  "cross_attention_dim": 1024,"""
    + _BLOCKS
    + """
  "downsample_padding": 1,
  "dual_cross_attention": false,
  "flip_sin_to_cos": true,
  "freq_shift": 0,
  "in_channels": 4,
  "layers_per_block": 2,
  "mid_block_scale_factor": 1,
  "norm_eps": 1e-05,
  "norm_num_groups": 32,
  "num_class_embeds": null,
  "only_cross_attention": false,
  "out_channels": 4,
  "sample_size": 96,
  "use_linear_projection": true,
  "upcast_attention": true
}"""
)
_XL = """{
  "_class_name": "UNet2DConditionModel",
  "_diffusers_version": "0.19.0.dev0",
  "act_fn": "silu",
  "addition_embed_type": "text_time",
  "addition_embed_type_num_heads": 64,
  "addition_time_embed_dim": 256,
  "attention_head_dim": [5, 10, 20],
  "block_out_channels": [320, 640, 1280],
  "center_input_sample": false,
  "class_embed_type": null,
  "class_embeddings_concat": false,
  "conv_in_kernel": 3,
  "conv_out_kernel": 3,
  "cross_attention_dim": 2048,
  "cross_attention_norm": null,
  "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
  "downsample_padding": 1,
  "dual_cross_attention": false,
  "encoder_hid_dim": null,
  "encoder_hid_dim_type": null,
  "flip_sin_to_cos": true,
  "freq_shift": 0,
  "in_channels": 4,
  "layers_per_block": 2,
  "mid_block_only_cross_attention": null,
  "mid_block_scale_factor": 1,
  "mid_block_type": "UNetMidBlock2DCrossAttn",
  "norm_eps": 1e-05,
  "norm_num_groups": 32,
  "num_attention_heads": null,
  "num_class_embeds": null,
  "only_cross_attention": false,
  "out_channels": 4,
  "projection_class_embeddings_input_dim": 2816,
  "resnet_out_scale_factor": 1.0,
  "resnet_skip_time_act": false,
  "resnet_time_scale_shift": "default",
  "sample_size": 128,
  "time_cond_proj_dim": null,
  "time_embedding_act_fn": null,
  "time_embedding_dim": null,
  "time_embedding_type": "positional",
  "timestep_post_act": null,
  "transformer_layers_per_block": [1, 2, 10],
  "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
  "upcast_attention": null,
  "use_linear_projection": true
}"""
_REFINER = """{
  "attention_head_dim": [6, 12, 24, 24],
  "block_out_channels": [384, 768, 1536, 1536],
  "cross_attention_dim": 1280,
  "down_block_types": [
    "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"
  ],
  "projection_class_embeddings_input_dim": 2560,
  "transformer_layers_per_block": 4,
  "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]
}"""
_XL_INPAINT = """{
  "_diffusers_version": "0.21.0.dev0",
  "_name_or_path": "valhalla/sdxl-inpaint-ema",
  "attention_type": "default",
  "decay": 0.9999,
  "dropout": 0.0,
  "in_channels": 9,
  "inv_gamma": 1.0,
  "min_decay": 0.0,
  "optimization_step": 37000,
  "power": 0.6666666666666666,
  "update_after_step": 0,
  "use_ema_warmup": false
}"""

UNETS = {
    "sd1.5": json.loads(_SD1),
    "sd1.5-inpainting": json.loads(_SD1) | {"in_channels": 9},
    "sd2.1": json.loads(_SD2),
    "sdxl": json.loads(_XL),
    "sdxl-refiner": json.loads(_XL) | json.loads(_REFINER),
    "sdxl-inpainting": json.loads(_XL) | json.loads(_XL_INPAINT),
}

_VAE = """{
  "_class_name": "AutoencoderKL",
  "_diffusers_version": "0.6.0",
  "act_fn": "silu",
  "block_out_channels": [128, 256, 512, 512],
  "down_block_types": [
    "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"
  ],
  "in_channels": 3,
  "latent_channels": 4,
  "layers_per_block": 2,
  "norm_num_groups": 32,
  "out_channels": 3,
  "sample_size": 512,
  "up_block_types": [
    "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"
  ]
}"""
_XL_VAE = """{
  "_diffusers_version": "0.20.0.dev0",
  "_name_or_path": "../sdxl-vae/",
  "force_upcast": true,
  "sample_size": 1024,
  "scaling_factor": 0.13025
}"""
_SD3_VAE = """{
  "_diffusers_version": "0.29.0.dev0",
  "force_upcast": true,
  "latent_channels": 16,
  "latents_mean": null,
  "latents_std": null,
  "sample_size": 1024,
  "scaling_factor": 1.5305,
  "shift_factor": 0.0609,
  "use_post_quant_conv": false,
  "use_quant_conv": false
}"""
VAES = {
    "sd1.5": json.loads(_VAE),
    "sdxl": json.loads(_VAE) | json.loads(_XL_VAE),
    "sd3": json.loads(_VAE) | json.loads(_SD3_VAE),
}

_CLIP_L = """{
  "_name_or_path": "openai/clip-vit-large-patch14",
  "architectures": ["CLIPTextModel"],
  "attention_dropout": 0.0,
  "bos_token_id": 0,
  "dropout": 0.0,
  "eos_token_id": 2,
  "hidden_act": "quick_gelu",
  "hidden_size": 768,
  "initializer_factor": 1.0,
  "initializer_range": 0.02,
  "intermediate_size": 3072,
  "layer_norm_eps": 1e-05,
  "max_position_embeddings": 77,
  "model_type": "clip_text_model",
  "num_attention_heads": 12,
  "num_hidden_layers": 12,
  "pad_token_id": 1,
  "projection_dim": 768,
  "torch_dtype": "float32",
  "transformers_version": "4.22.0.dev0",
  "vocab_size": 49408
}"""
_OPENCLIP_H = """{
  "_name_or_path": "hf-models/stable-diffusion-v2-768x768/text_encoder",
  "hidden_act": "gelu",
  "hidden_size": 1024,
  "intermediate_size": 4096,
  "num_attention_heads": 16,
  "num_hidden_layers": 23,
  "projection_dim": 512,
  "transformers_version": "4.25.0.dev0"
}"""
_OPENCLIP_G = """{
  "architectures": ["CLIPTextModelWithProjection"],
  "hidden_act": "gelu",
  "hidden_size": 1280,
  "intermediate_size": 5120,
  "num_attention_heads": 20,
  "num_hidden_layers": 32,
  "projection_dim": 1280,
  "torch_dtype": "float16",
  "transformers_version": "4.32.0.dev0"
}"""
TEXT_TOWERS = {
    "clip-l": json.loads(_CLIP_L),
    "openclip-h": json.loads(_CLIP_L) | json.loads(_OPENCLIP_H),
    "openclip-bigg": json.loads(_CLIP_L) | json.loads(_OPENCLIP_G),
}

_PNDM = """{
  "_class_name": "PNDMScheduler",
  "_diffusers_version": "0.6.0",
  "beta_end": 0.012,
  "beta_schedule": "scaled_linear",
  "beta_start": 0.00085,
  "num_train_timesteps": 1000,
  "set_alpha_to_one": false,
  "skip_prk_steps": true,
  "steps_offset": 1,
  "trained_betas": null,
  "clip_sample": false
}"""
_EULER = """{
  "_class_name": "EulerDiscreteScheduler",
  "_diffusers_version": "0.19.0.dev0",
  "beta_end": 0.012,
  "beta_schedule": "scaled_linear",
  "beta_start": 0.00085,
  "clip_sample": false,
  "interpolation_type": "linear",
  "num_train_timesteps": 1000,
  "prediction_type": "epsilon",
  "sample_max_value": 1.0,
  "set_alpha_to_one": false,
  "skip_prk_steps": true,
  "steps_offset": 1,
  "timestep_spacing": "leading",
  "trained_betas": null,
  "use_karras_sigmas": false
}"""
_NULLS = """{
  "_class_name": "EulerDiscreteScheduler",
  "_diffusers_version": "0.27.0.dev0",
  "rescale_betas_zero_snr": null,
  "sigma_max": null,
  "sigma_min": null,
  "timestep_spacing": "trailing",
  "timestep_type": "discrete"
}"""
SCHEDULERS = {
    "sd1.5": json.loads(_PNDM),
    "sd2.1": json.loads(_PNDM)
    | {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": "0.8.0",
        "prediction_type": "v_prediction",
    },
    "sdxl": json.loads(_EULER),
    "with-nulls": json.loads(_EULER) | json.loads(_NULLS),
    "sd3": json.loads(
        """{
  "_class_name": "FlowMatchEulerDiscreteScheduler",
  "_diffusers_version": "0.29.0.dev0",
  "num_train_timesteps": 1000,
  "shift": 3.0
}"""
    ),
    "cosxl": json.loads(
        """{
  "_class_name": "EDMEulerScheduler",
  "_diffusers_version": "0.28.0.dev0",
  "final_sigmas_type": "zero",
  "num_train_timesteps": 1000,
  "prediction_type": "v_prediction",
  "rho": 7.0,
  "sigma_data": 1.0,
  "sigma_max": 120.0,
  "sigma_min": 0.002,
  "sigma_schedule": "exponential"
}"""
    ),
}
