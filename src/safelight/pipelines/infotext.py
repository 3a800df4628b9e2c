"""Infotext: what AUTOMATIC1111's web UI and its kin write into a picture about its making.

Lines of the prompt, lines of the negative prompt after "Negative prompt:", and a last line of
parameters: "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512".
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_NEGATIVE = "Negative prompt:"
_PROMPTS = ("Prompt", "Negative prompt")  # parameters that the web UI takes for the lines
_FEWEST = 3  # parameters that make a line one of parameters, as there
_PARAMETER = re.compile(r'\s*(\w[\w /-]*):[ \t]*("(?:[^"\\]|\\.)*"|[^,]*)\s*(?:,|$)')
_QUOTED = re.compile(r'[,:"\s]')


@dataclass(frozen=True)
class Infotext:
    """A prompt, a negative prompt, and parameters by the names that the web UI gives them."""

    prompt: str
    negative: str = ""
    parameters: dict[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        """The text that `parse` reads, and the web UI too.

        A prompt that its lines cannot say, such as one with a line that begins with "Negative
        prompt:", is said again by a quoted parameter, which both take before the lines.
        """
        plain = self._with(self.parameters)
        if parse(plain) == self:
            return plain
        said = dict(zip(_PROMPTS, (self.prompt, self.negative), strict=True))
        return self._with({**self.parameters, **said})

    def _with(self, parameters: dict[str, str]) -> str:
        last = ", ".join(f"{name}: {_quoted(value)}" for name, value in parameters.items())
        negative = f"{_NEGATIVE} {self.negative}" if self.negative else ""
        return "\n".join(part for part in (self.prompt, negative, last) if part)


def parse(text: str) -> Infotext:
    """Reads an infotext; a text without a line of parameters is a prompt, and every text is one."""
    *lines, last = text.rstrip().split("\n")
    parameters = dict(_parameters(last))
    if len(parameters) < _FEWEST:
        lines, parameters = [*lines, last], {}
    negative = next((i for i, line in enumerate(lines) if _opens(line)), len(lines))
    prompt, negative = "\n".join(lines[:negative]), "\n".join(map(_opened, lines[negative:]))
    prompt, negative = (
        parameters.pop(name, plain)
        for name, plain in zip(_PROMPTS, (prompt, negative), strict=True)
    )
    return Infotext(prompt, negative, parameters)


def _opens(line: str) -> bool:
    return line.strip().startswith(_NEGATIVE)


def _opened(line: str) -> str:
    """A line of the negative prompt without the mark."""
    return line.strip().removeprefix(_NEGATIVE).removeprefix(" ") if _opens(line) else line


def _parameters(line: str) -> Iterator[tuple[str, str]]:
    """The parameters of a line; what is none of them is passed over up to the next comma."""
    place = 0
    while 0 <= place < len(line):
        match = _PARAMETER.match(line, place)
        if match is None:
            place = line.find(",", place) + 1 or len(line)
        else:
            yield match[1], _unquoted(match[2].strip())
            place = match.end()


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if _QUOTED.search(value) or not value else value


def _unquoted(value: str) -> str:
    if len(value) < 2 or not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(json.loads(value))
    except json.JSONDecodeError:
        return value
