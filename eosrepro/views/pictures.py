"""Pictures that are small enough to be kept in a repository."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 60_000
# Widths in pixels, and colours. Lines keep their colours before they keep their width: a run is known by its colour.
FORMS = ((1000, 64), (1000, 32), (800, 32), (640, 32), (500, 32), (400, 24), (300, 16))


def reduced(png: bytes, most_bytes: int = MOST_BYTES) -> bytes:
    """A PNG on white with few colours: the first of `FORMS` that is small enough, or else the last."""
    from PIL import Image

    with Image.open(BytesIO(png)) as read:
        drawn = read.convert("RGBA")
    drawn = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
    written = b""
    for width, colours in FORMS:
        height = max(1, round(drawn.height * width / drawn.width))
        shown = drawn.resize((width, height), Image.Resampling.LANCZOS) if drawn.width > width else drawn
        buffer = BytesIO()
        _with_few_colours(shown, colours).save(buffer, "png", optimize=True)
        written = buffer.getvalue()
        if len(written) <= most_bytes:
            break
    return written


def _with_few_colours(image: Image, colours: int) -> Image:
    """Each pixel in the mean colour of those that are like it."""
    from PIL import Image

    # Median cut would spend its colours on the many shades of text, and give two lines the same one.
    few = image.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    which, pixels = np.asarray(few).ravel(), np.asarray(image, dtype=float).reshape(-1, 3)
    sums = np.stack([np.bincount(which, channel, minlength=colours) for channel in pixels.T], axis=1)
    means = sums / np.maximum(np.bincount(which, minlength=colours), 1)[:, None]
    few.putpalette(means.round().astype(np.uint8).tobytes())
    return few
