"""`ProcessImageJob`: thumbnail, resize, watermark and convert an image, in the order given."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias, cast

import msgspec
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from protojobs import Discard, Job, JobContext
from protojobs_examples._folders import folder_from_environment, inside

__all__ = ["Convert", "ImageRefused", "ImageWork", "ProcessImageJob", "Resize", "Thumbnail", "Watermark"]

SIDE_MAX = 10_000
PIXELS_MAX = 40_000_000  # 160 MB in memory as RGBA; a file of a few kilobytes can ask for a thousand times that
SOURCE_BYTES_MAX = 100 * 1024 * 1024
OPERATIONS_MAX = 20
FORMATS = {"jpeg": (".jpg", ".jpeg"), "png": (".png",), "webp": (".webp",)}
_READS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # nothing that Pillow hands to another program, as EPS

Side = Annotated[int, msgspec.Meta(ge=1, le=SIDE_MAX)]


class Thumbnail(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="thumbnail", tag_field="do"):
    """Shrink it to fit into width x height, keeping its proportions. Never enlarges."""

    width: Side
    height: Side


class Resize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="resize", tag_field="do"):
    """Make it exactly width x height; what does not fit the new proportions is cut off evenly at the edges."""

    width: Side
    height: Side


class Watermark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="watermark", tag_field="do"):
    """Write a text into the lower right corner, `opacity` from 0 to 1."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    opacity: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.6


class Convert(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="convert", tag_field="do"):
    """Store it in this format; `quality` matters for jpeg and webp. jpeg has no transparency: it becomes white."""

    format: Literal["jpeg", "png", "webp"]
    quality: Annotated[int, msgspec.Meta(ge=1, le=100)] = 85


Operation: TypeAlias = Thumbnail | Resize | Watermark | Convert


class ImageWork(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which image, what to do with it, and where the result goes. Paths are inside the worker's images folder.

    In a job's data an operation is an object such as `{"do": "thumbnail", "width": 200, "height": 200}`.
    """

    source: str
    target: str
    operations: Annotated[list[Operation], msgspec.Meta(min_length=1, max_length=OPERATIONS_MAX)]

    def __post_init__(self) -> None:
        suffix = Path(self.target).suffix.lower()
        if suffix not in [known for suffixes in FORMATS.values() for known in suffixes]:
            raise ValueError(f"target {self.target!r} must end in .jpg, .jpeg, .png or .webp")
        for step in self.operations:
            if isinstance(step, Convert) and suffix not in FORMATS[step.format]:
                raise ValueError(f"target {self.target!r} does not look like {step.format}")


class ImageRefused(Exception):
    """This image cannot be processed, today or tomorrow: not an image, too large, outside the folder. Not retried."""


class ProcessImageJob(Job[ImageWork]):
    """Apply operations to an image, one after the other.

        queue.push(ProcessImageJob, {
            "source": "in/cat.png", "target": "out/cat.jpg",
            "operations": [{"do": "thumbnail", "width": 800, "height": 800},
                           {"do": "watermark", "text": "my shop"},
                           {"do": "convert", "format": "jpeg"}],
        })

    *Whole or not at all*: the result is written to a file beside the target and renamed onto it, which is one step. Who
    looks at the target sees the old image or the new one. Running the job twice gives the same image again, since the
    source is only read.

    *Untrusted images*: the header is read first, and an image that would unpack to more than `PIXELS_MAX` pixels is
    refused before it is unpacked.

    *Configuration*: IMAGES_FOLDER in the worker's environment, or the class attribute `folder` of a subclass.
    """

    name = "examples.process_image"
    queue = "images"
    max_retries = 3
    retry_delay = 10
    timeout = 120
    retry_on = (OSError, MemoryError)  # a full disk, a mount that is away; what is wrong with the image is ImageRefused

    folder: ClassVar[Path | None] = None
    """None: IMAGES_FOLDER from the environment; unset too: nothing may be read or written, and the job fails."""

    def handle(self, data: ImageWork, ctx: JobContext) -> dict[str, object] | Discard:
        """Do it; the result says where the new image is, and how large."""
        folder = self.folder or folder_from_environment("IMAGES_FOLDER")
        if folder is None:
            raise ImageRefused("this worker has no images folder: set IMAGES_FOLDER where it starts")
        source, target = inside(folder, data.source), inside(folder, data.target)
        if source == target:
            raise ImageRefused(
                "source and target are the same file: a second run would begin with the first one's result"
            )
        image = load(source)
        options: dict[str, object] = {}
        for done, step in enumerate(data.operations, start=1):
            # A thread cannot be stopped from outside at a good moment, so the job looks now and then for itself.
            if ctx.cancelled():
                return Discard("cancelled while it was processed")
            image = apply(step, image)
            if isinstance(step, Convert):
                options = {} if step.format == "png" else {"quality": step.quality}
            ctx.progress(done / (len(data.operations) + 1))
        written = store(image, target, options, f"{ctx.id}-{ctx.claim_seq}")
        ctx.progress(1.0)
        return {"target": str(target), "width": image.width, "height": image.height, "bytes": written}


def load(source: Path) -> Image.Image:
    """The image, upright. Raises ImageRefused for what is none, or too large to unpack."""
    if not source.is_file():
        raise ImageRefused(f"there is no image {source}")
    if source.stat().st_size > SOURCE_BYTES_MAX:
        raise ImageRefused(f"{source} is larger than {SOURCE_BYTES_MAX:,} bytes")
    try:
        with Image.open(source, formats=_READS) as opened:  # reads the header only
            _check_size(opened.width, opened.height)
            opened.load()
            return ImageOps.exif_transpose(opened)
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise ImageRefused(f"{source} is not an image that can be read: {error}") from error
    except OSError as error:
        if error.errno is None:  # Pillow's own: a truncated or broken file. The system's errors have a number
            raise ImageRefused(f"{source} is broken: {error}") from error
        raise


def apply(step: Operation, image: Image.Image) -> Image.Image:
    """A new image, with one operation applied."""
    match step:
        case Thumbnail():
            smaller = image.copy()
            smaller.thumbnail((step.width, step.height), Image.Resampling.LANCZOS)
            return smaller
        case Resize():
            _check_size(step.width, step.height)
            return ImageOps.fit(_with_all_colours(image), (step.width, step.height), Image.Resampling.LANCZOS)
        case Watermark():
            return _watermarked(image, step)
        case Convert():
            return _for_jpeg(image) if step.format == "jpeg" else image


def store(image: Image.Image, target: Path, options: dict[str, object], run: str) -> int:
    """Write the image to `target` in one visible step, and return its bytes. `run` names this very run of the job."""
    suffix = target.suffix.lower()
    file_format = next(name for name, suffixes in FORMATS.items() if suffix in suffixes)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The name is this run's own: should an earlier run still be at work, each writes its file, and each is whole.
    part = target.with_name(f".{target.name}.{run}.part")
    try:
        with part.open("wb") as file:
            save = cast("Callable[..., None]", image.save)
            save(file, format=file_format, **options)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name on an empty file
            written = file.tell()
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return written


def _check_size(width: int, height: int) -> None:
    if width * height > PIXELS_MAX:
        raise ImageRefused(f"{width} x {height} are more than {PIXELS_MAX:,} pixels")


def _with_all_colours(image: Image.Image) -> Image.Image:
    """As RGB or RGBA: a palette cannot be blended, and CMYK cannot be drawn on."""
    return image if image.mode in ("RGB", "RGBA") else image.convert("RGBA" if image.has_transparency_data else "RGB")


def _for_jpeg(image: Image.Image) -> Image.Image:
    coloured = _with_all_colours(image)
    if coloured.mode == "RGB":
        return coloured
    white = Image.new("RGBA", coloured.size, "white")
    return Image.alpha_composite(white, coloured).convert("RGB")


def _watermarked(image: Image.Image, step: Watermark) -> Image.Image:
    base = _with_all_colours(image)
    layer = Image.new("RGBA", base.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    size = max(8.0, min(base.size) / 14)
    font = ImageFont.load_default(size)  # Pillow's own font: the same on every machine
    box = draw.textbbox((0, 0), step.text, font=font)
    place = (base.width - box[2] - size / 2, base.height - box[3] - size / 2)
    alpha = round(255 * step.opacity)
    draw.text(place, step.text, font=font, fill=(255, 255, 255, alpha), stroke_width=1, stroke_fill=(0, 0, 0, alpha))
    return Image.alpha_composite(base.convert("RGBA"), layer).convert(base.mode)
