"""Small pictures of large ones, for notifications and pages."""

from __future__ import annotations

import struct
import warnings
from io import BytesIO

from PIL import Image, ImageFile, ImageOps

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
# A camera has 8 to 12 million; decoded, so many take 192 MB.
MAX_PIXELS = 64_000_000
_QUALITY = 80
# What Pillow raises on what is no picture.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def thumbnail(octets: bytes, max_px: int) -> bytes | None:
    """A JPEG of at most `max_px` in width and height, upright; None: no picture of a known kind.

    What its file says of place and camera does not go along.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.MAX_IMAGE_PIXELS = MAX_PIXELS
            ImageFile.LOAD_TRUNCATED_IMAGES = True  # half a picture is better than none
            with Image.open(BytesIO(octets), formats=FORMATS) as picture:
                picture.thumbnail((max_px, max_px))
                return _jpeg(picture)
    except (*_BROKEN, Image.DecompressionBombWarning):
        return None


def _jpeg(picture: Image.Image) -> bytes:
    upright = ImageOps.exif_transpose(picture).convert("RGBA")
    flat = Image.new("RGB", upright.size, "white")
    flat.paste(upright, mask=upright)
    made = BytesIO()
    flat.save(made, "JPEG", quality=_QUALITY)
    return made.getvalue()
