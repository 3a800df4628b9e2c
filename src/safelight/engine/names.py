"""The names of engines; without torch, for what must start at once."""

from typing import Literal

Engine = Literal["auto", "torch", "compile", "openvino"]
Chosen = Literal["torch", "compile", "openvino"]
