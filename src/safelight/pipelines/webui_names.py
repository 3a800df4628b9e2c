"""AUTOMATIC1111's words for samplers, schedules and upscalers, to and from ours."""

from collections.abc import Mapping

from safelight.pipelines.choices import Upscaler

SAMPLERS: Mapping[str, str] = {
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "dpm2": "DPM2",
    "dpm2_a": "DPM2 a",
    "lms": "LMS",
    "plms": "PLMS",
    "dpmpp_2s": "DPM++ 2S",
    "dpmpp_2s_a": "DPM++ 2S a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "unipc": "UniPC",
    "deis": "DEIS",
    "lcm": "LCM",
    "tcd": "TCD",
    "restart": "Restart",
}
"""Ours to theirs; Forge's and reForge's where AUTOMATIC1111 has no such sampler."""

SCHEDULES: Mapping[str, str] = {
    "karras": "Karras",
    "exponential": "Exponential",
    "normal": "Normal",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
    "beta": "Beta",
    "ays": "Align Your Steps",
    "ays_sdxl": "Align Your Steps",
    "leading": "DDIM",
}
"""Ours to theirs, where they have it."""

AUTOMATIC: Mapping[str, str] = {
    "dpm2": "karras",
    "dpm2_a": "karras",
    "dpmpp_2s_a": "karras",
    "dpmpp_2m": "karras",
    "dpmpp_sde": "karras",
    "dpmpp_2m_sde": "exponential",
    "dpmpp_3m_sde": "exponential",
    "restart": "karras",
    "ddim": "leading",
    "plms": "leading",
    "unipc": "leading",
}
"""What "Schedule type: Automatic" is with a sampler there; "normal" with the others."""

BY_TIMES = frozenset({"ddim", "plms", "unipc"})
"""Samplers that go by times there, whatever schedule is chosen."""

OTHERWISE: Mapping[str, str] = {
    "dpm2": "there it leaves out the last noise level but one",
    "dpm2_a": "there it leaves out the last noise level but one",
    "dpmpp_3m_sde": "there it leaves out the last noise level but one",
    "dpmpp_sde": "there its noise is a Brownian path",
    "dpmpp_2m_sde": "there its noise is a Brownian path",
}
"""How a sampler there differs from ours of the same name."""

UPSCALERS: Mapping[Upscaler, str] = {"latent": "Latent", "lanczos": "Lanczos"}
