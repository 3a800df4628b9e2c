"""The command line: `safelight generate`, `train`, `convert` and the others."""

import os
import sys
from collections.abc import Sequence
from typing import cast

from cyclopts import App, CycloptsError, Parameter, Token, UnknownOptionError, convert

from safelight import __version__
from safelight.app.other_names import our_name
from safelight.errors import SafelightError

USER_ERROR = 2
INTERRUPTED = 130


def _converted(kind: object, tokens: Sequence[Token]) -> object:
    """As cyclopts, which would round what is no whole number."""
    if kind is int:
        for token in tokens:
            int(token.value)
    return cast(object, convert(kind, tokens))


app = App(
    name="safelight",
    help="Latent diffusion: make pictures, and train the models that make them.",
    help_format="plaintext",  # markdown would cost a third of the start time
    version=__version__,
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(converter=_converted),
)
# Each command's module and function, and its help, whose first line the list of commands shows.
_COMMANDS = {
    "generate": (
        "generate:generate",
        """Make pictures from a prompt.

Prints the path of each picture once it is written. A picture carries what is
needed to make it again: see safelight show and safelight rerun.""",
    ),
    "grid": (
        "grid:grid",
        """Make one labelled picture of many, along one axis or two.

Takes what safelight generate takes, and what varies: --x steps=5,10,20 --y
scale=1,5,9. The picture carries what made each of its cells; safelight rerun
makes it again.""",
    ),
    "interpolate": (
        "interpolate:interpolate",
        """Make pictures on the way from one prompt to another.

Takes what safelight generate takes, and --frames and --to-seed. The pictures
are numbered in their order; each carries what made it.""",
    ),
    "animate": (
        "animate:animate",
        """Make a clip of a picture, of a prompt, or of both.

By Stable Video Diffusion, a model of pictures with a motion module of
AnimateDiff, or a video model that safelight trained. The clip carries what made
it: see safelight show and safelight rerun.""",
    ),
    "live": (
        "live:live",
        """Make pictures of a drawing, a file or a camera while these change.

Opens a page on this machine to draw on, or follows what --watch or --camera
names; --output writes the newest picture into a file instead. Ctrl-C ends it.""",
    ),
    "serve": (
        "serve:serve",
        """Serve pictures over HTTP: jobs, OpenAI's Images API and AUTOMATIC1111's.

Listens on this machine alone unless told otherwise, and prints where. Needs
pip install "safelight[serve]".""",
    ),
    "rerun": (
        "rerun:rerun",
        """Make a picture or a clip again, with the same pixels.

Reads from the file what made the picture, checks that the model's weights are
the same ones, and says whether the pixels are; the status is 1 if not. A
picture of AUTOMATIC1111's web UI is made by the same parameters.""",
    ),
    "show": ("show:show", "Print what made a picture or a clip."),
    "train": (
        "train:train",
        """Train a model on a folder of pictures, or by a recipe.

For a folder a recipe is chosen by its pictures and by this machine, printed
with the expected time and memory, and written beside the result. What was
stopped, by Ctrl-C too, goes on with --resume where it was.""",
    ),
    "eval": ("evaluate:evaluate", "Measure a model."),
    "inspect": (
        "inspect:inspect",
        """Say what a file or folder of weights is.

Its family, precision, size and parts, told by what it holds and never by its
name.""",
    ),
    "convert": (
        "convert:convert",
        """Turn a single file into a folder, or a folder into a single file.

A target that ends in .safetensors is written as one file in the layout of
CompVis and Stability, any other as a folder in that of diffusers.""",
    ),
    "annotate": (
        "annotate:annotate",
        """Make the hint of a ControlNet from a picture.

Edges, lines, depth, a pose and others, as large as the picture. Prints the path
of the hint once it is written.""",
    ),
    "models": (
        "models:models",
        """List the models that --model finds by name.

These are the bundled one, the folders below those that the environment variable
SAFELIGHT_MODELS lists, and what the Hugging Face cache of this machine holds.
Any other model is given by its folder.""",
    ),
}
for _name, (_path, _help) in _COMMANDS.items():
    app.command(f"safelight.app.commands.{_path}", name=_name, help=_help)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line (by default the process's own) and gives its exit status.

    A user's mistake is one line on standard error and status 2; an interrupt is status 130.
    """
    tokens = sys.argv[1:] if arguments is None else list(arguments)
    try:
        status = app(tokens)
    except UnknownOptionError as error:
        print(f"safelight: {_one_line(_unknown(error))}", file=sys.stderr)
        return USER_ERROR
    except (SafelightError, CycloptsError) as error:
        print(f"safelight: {_one_line(str(error))}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("safelight: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a path or a disk that does not allow what was asked
        told = str(error) or type(error).__name__
        if error.strerror:
            told = f"{error.filename or 'Input or output'}: {error.strerror}."
        print(f"safelight: {_one_line(told)}", file=sys.stderr)
        return USER_ERROR
    return status if isinstance(status, int) else 0


def _unknown(error: UnknownOptionError) -> str:
    """What is said of an unknown option: ours, where another program calls one of ours so."""
    said = error.token.keyword or ""
    known = {name for argument in error.argument_collection for name in argument.names}
    ours = our_name(said, known)
    return str(error) if ours is None else f"Unknown option: {said}. Did you mean {ours}?"


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
