"""Other programs' names for our samplers: AUTOMATIC1111's, ComfyUI's, and diffusers' classes."""

import re
from collections.abc import Mapping

from safelight.diffusion.schedules import SCHEDULES

_OTHERS: Mapping[str, str] = {
    "euler_ancestral": "euler_a",
    "pndm": "plms",
    "dpm_2": "dpm2",
    "dpm_2_a": "dpm2_a",
    "dpm_2_ancestral": "dpm2_a",
    "dpm2_ancestral": "dpm2_a",
    "dpmpp_2s_ancestral": "dpmpp_2s_a",
    "uni_pc": "unipc",
    "uni_pc_bh2": "unipc",
    "ddimscheduler": "ddim",
    "ddpmscheduler": "ddpm",
    "pndmscheduler": "plms",
    "eulerdiscretescheduler": "euler",
    "edmeulerscheduler": "euler",
    "flowmatcheulerdiscretescheduler": "euler",
    "eulerancestraldiscretescheduler": "euler_a",
    "heundiscretescheduler": "heun",
    "kdpm2discretescheduler": "dpm2",
    "kdpm2ancestraldiscretescheduler": "dpm2_a",
    "lmsdiscretescheduler": "lms",
    "dpmsolversinglestepscheduler": "dpmpp_2s",
    "dpmsolvermultistepscheduler": "dpmpp_2m",
    "edmdpmsolvermultistepscheduler": "dpmpp_2m",
    "dpmsolversdescheduler": "dpmpp_sde",
    "unipcmultistepscheduler": "unipc",
    "deismultistepscheduler": "deis",
    "lcmscheduler": "lcm",
    "tcdscheduler": "tcd",
}
_SHORT = {"ka": "karras", "exp": "exponential"}  # AUTOMATIC1111's, as in "k_dpmpp_2m_ka"


def plain_name(name: str) -> tuple[str, str | None]:
    """A sampler's name in our letters, and the schedule at its end if there is one: "DPM++ 2M
    Karras" is ("dpmpp_2m", "karras"). The name need not be one that we know.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower().replace("++", "pp")).strip("_")
    plain = plain.removeprefix("k_")
    chosen = None
    for ending, schedule in {**{known: known for known in SCHEDULES}, **_SHORT}.items():
        if plain.endswith(f"_{ending}"):
            plain, chosen = plain.removesuffix(f"_{ending}"), schedule
            break
    plain = plain.removesuffix("_gpu")
    return _OTHERS.get(plain, plain), chosen
