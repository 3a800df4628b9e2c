"""The names of engines, and of how weights are stored; without torch, for what must start at
once.
"""

from typing import Literal

Engine = Literal["auto", "torch", "prepared", "compile", "openvino"]
Chosen = Literal["torch", "prepared", "compile", "openvino"]
BY_TORCH = ("torch", "prepared")
Storage = Literal["int8", "float16", "bfloat16"]
